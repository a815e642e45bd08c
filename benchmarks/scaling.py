"""How the cost of the pipeline grows with images, files, classes, datasets, ways, shots and tasks.

    python benchmarks/scaling.py [--quick] [--json FILE] [--axis NAME ...]

Everything is made up, and random features stand for networks, whose cost is linear by nature. Costs are seconds of
processor time on one thread, and peak bytes. An exponent is the slope of log cost over log size, fitted to the upper
half of the sizes, with its 95 % interval; 1 is linear, and up to 1.05 counts as such. The rows of an axis are that of
all its parts together and one for each part. `ways` and `shots` are of one task. `ways/network` and `shots/network`
add what one network takes for the images of the task. `tasks/real` is a run of autometa on the demo with 600 tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _learner_report import Report, Row, row
from _scaling_fit import LEAST_S, LINEAR, Costs, fit_exponent, rows_of
from _scaling_pools import measure_classes, measure_datasets, measure_files, measure_images
from _scaling_tasks import (
    QUERIES,
    embedding_s,
    measure_ingested,
    measure_shots,
    measure_tasks,
    measure_ways,
)

from autometa.bundles.shipped import DEMO

ROOT = Path(__file__).resolve().parents[1]
Measure = Callable[[Costs, tuple[int, ...]], None]

AXES: dict[str, tuple[Measure, tuple[int, ...], tuple[int, ...]]] = {
    "images": (
        measure_images,
        (1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000),
        (1_000, 5_000, 20_000, 50_000, 100_000, 200_000),
    ),
    "files": (measure_files, (500, 1_000, 2_000, 5_000, 10_000, 20_000), (200, 400, 800, 1_600)),
    "classes": (
        measure_classes,
        (100, 300, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000),
        (100, 300, 500, 1_000, 2_000, 4_000),
    ),
    "datasets": (measure_datasets, (4, 10, 20, 40, 60, 100, 200, 400), (4, 10, 20, 40, 70, 100)),
    "ways": (measure_ways, (2, 5, 10, 20, 40, 60, 80), (2, 5, 10, 20, 30, 40)),
    "shots": (measure_shots, (1, 5, 10, 20, 40, 80, 160), (1, 5, 10, 20, 40, 80)),
    "tasks": (measure_tasks, (60, 200, 600, 1_500, 3_000, 6_000), (60, 120, 240, 480)),
    "ingested": (
        partial(measure_ingested, data=DEMO / "CLIPART"),
        (60, 200, 600, 1_500, 3_000, 6_000),
        (60, 120, 240, 480),
    ),
}
"""The measurement of each axis, its sizes, and those of --quick."""
PER_TASK = ("ways", "shots")
REAL = "--tasks-per-dataset 200 --time-budget 120s --ways 2-10 --shots 1-10 --query-per-class 5"


def measure_axis(axis: str, *, quick: bool) -> list[Row]:
    """The rows of an axis."""
    measure, sizes, few = AXES[axis]
    sizes = few if quick else sizes
    costs = Costs()
    measure(costs, sizes)
    rows = rows_of(axis, costs, f"sizes {sizes[0]:,} to {sizes[-1]:,}")
    return rows + (_per_task(axis, costs) if axis in PER_TASK else [])


def _per_task(axis: str, costs: Costs) -> list[Row]:
    """A task with what one network takes for its images, and an image of a task."""
    by_size = costs.seconds["answer"]
    image_s = embedding_s()
    images = {size: size * (5 + QUERIES) if axis == "ways" else 5 * (size + QUERIES) for size in by_size}
    variants = {
        "network": {n: [min(found) + image_s * images[n]] for n, found in by_size.items()},
        "image": {n: [min(found) / images[n]] for n, found in by_size.items()},
    }
    rows = []
    for name, cost in variants.items():
        if (fitted := fit_exponent(cost, LEAST_S if name == "network" else 0.0)) is not None:
            note = f"{1000 * image_s:.2g} ms an image in the network" if name == "network" else "of a task"
            exponent, width = round(fitted[0], 3), round(fitted[1], 3)
            reference = LINEAR if name == "network" else None
            rows.append(row(f"scaling/{axis}/{name}", exponent, "exponent", reference, ci95=width, note=note))
    return rows


def measure_real_run() -> list[Row]:
    """A run of autometa with 200 tasks of each dataset of the demo: tasks without an answer, and seconds of one."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as scratch:
        out = Path(scratch) / "run"
        given = ["--dataset", str(DEMO), "--output", str(out), *REAL.split()]
        command = [sys.executable, str(ROOT / "run_local.py"), *given]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run of 600 tasks failed: {done.stderr[-400:] or done.stdout[-400:]}")
        scores = json.loads((out / "scoring" / "scores.json").read_text(encoding="utf-8"))
        record = json.loads((out / "ingestion" / "ingestion.json").read_text(encoding="utf-8"))
    seconds = {stage["name"]: stage["seconds"] for stage in record["stages"]}
    tasks, budget_s = scores["tasks"], record["time_budget_s"]
    return [
        row("scaling/tasks/real/unanswered", scores["tasks_missing"], f"of {tasks:g} tasks"),
        row("scaling/tasks/real/task_s", seconds["meta_test"] / tasks, "s"),
        row("scaling/tasks/real/duration_s", record["duration_s"], "s", budget_s, note=REAL),
    ]


def main() -> None:
    """Parse the command line, measure, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, without the run of autometa")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--axis", nargs="+", choices=[*AXES, "real"], metavar="NAME", help=", ".join(AXES))
    asked = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other use processor time
    report = Report(asked.json, "one thread, random features", resume=False)
    for axis in asked.axis or AXES:
        if axis != "real":
            report.add(measure_axis(axis, quick=asked.quick))
    if "real" in (asked.axis or () if asked.quick else asked.axis or ("real",)):
        report.add(measure_real_run())


if __name__ == "__main__":
    main()
