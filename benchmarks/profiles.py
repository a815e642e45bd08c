"""How well a profile predicts what budgets are worth on a machine with one processor, which is this one with a limit.

    python benchmarks/profiles.py --data DIR [--dataset CLIPART] [--seed 0] [--json FILE]
    python benchmarks/profiles.py --quick [--json FILE]

Runs of autometa on two processors give the measured points, profiles of two and of one processor the speeds. The
prediction for one processor is set against runs that may use one only: the error in points of score, and in seconds
of the first learner and of the work before the search. `--quick` makes no runs: it predicts the seconds of a fixed
piece of work, embedding and answering, on one processor from those on two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import numpy as np
from _arena_runs import first_learner_s
from _learner_report import Report, Row, row

from autometa.judging.outcome import read_json
from autometa.tuning.point import Point
from autometa.tuning.predicted import PredictedPoint, predict_curve, scale_seconds
from autometa.tuning.profiles import KINDS, Profile, read_profile

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = "--ways 2-20 --shots 1-10 --query-per-class 5 --memory-budget 4GB"
WIDE_S, NARROW_S = (20, 40, 80, 160), (60, 120)
"""Budgets on all processors, and on one: where that is half as fast, these lie between those."""
BEFORE_SEARCH = ("prepare", "decode", "bootstrap", "pool", "probe")
MEASURE = """
import sys
from pathlib import Path
from autometa.tuning.measured import measure_profile
measure_profile(sys.argv[1], seconds=float(sys.argv[2])).save(Path(sys.argv[3]))
"""
WORK = """
import sys, time
import torch
from autometa.tuning.measured import _answer_tasks, _embed_images
embed, answer = _embed_images("cpu"), _answer_tasks()
embed(), answer()
began = time.perf_counter()
for _ in range(int(sys.argv[1])):
    embed()
middle = time.perf_counter()
for _ in range(2 * int(sys.argv[1])):
    answer()
print(middle - began, time.perf_counter() - middle)
"""


@contextmanager
def one_processor() -> Iterator[None]:
    """Processes that are started in this block may use the first processor only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_python(code: str, *arguments: object) -> str:
    """What a new process prints that runs this code."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-600:])
    return done.stdout


def measured(name: str, seconds: float) -> Profile:
    """The profile that a new process measures within the limits that hold now."""
    with tempfile.TemporaryDirectory(prefix="profiles-") as scratch:
        file = Path(scratch) / "profile.yaml"
        run_python(MEASURE, name, seconds, file)
        return read_profile(str(file))


def run_point(dataset: Path, budget_s: float, seed: int, threads: int) -> Point:
    """A run of autometa as a point, with the seconds of its stages."""
    with tempfile.TemporaryDirectory(prefix="profiles-") as scratch:
        out = Path(scratch) / "run"
        given = ["--dataset", dataset, "--output", out, "--time-budget", f"{budget_s:g}s", "--seed", seed]
        command = [sys.executable, str(ROOT / "run_local.py"), *map(str, given), *SETTINGS.split()]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run of {budget_s:g} s failed: {done.stderr[-400:]}")
        record, scores = (
            read_json(out / "ingestion" / "ingestion.json"),
            read_json(out / "scoring" / "details.json"),
        )
        first_s = first_learner_s(out / "ingestion" / "submission.log", record)
        inner = json.loads((out / "ingestion" / "stages.json").read_text(encoding="utf-8"))
    seconds = {stage["stage"]: stage["actual_s"] or 0.0 for stage in inner}
    seconds |= {stage["name"]: stage["seconds"] for stage in record["stages"]} | {
        "total": record["duration_s"]
    }
    accuracies = [100 * task["metrics"]["normalized_accuracy"] for task in scores["tasks"]]
    width = 1.96 * float(np.std(accuracies, ddof=1)) / len(accuracies) ** 0.5
    print(f"{threads} processor(s), {budget_s:g} s: {fmean(accuracies):.1f} %", flush=True)
    return Point(
        time_budget_s=budget_s, threads=threads, score=fmean(accuracies), ci95=width, seconds=seconds,
        first_learner_s=first_s, score_per_task=accuracies,
    )  # fmt: skip


def compare(
    wide: Sequence[Point], narrow: Sequence[Point], here: Profile, there: Profile, note: str
) -> Iterator[Row]:
    """Rows of what was predicted for one processor against what was measured with one."""
    found = predict_curve(wide, there, here, [point.time_budget_s for point in narrow])
    errors = []
    for predicted, real in zip(
        found.points, sorted(narrow, key=lambda point: point.time_budget_s), strict=True
    ):
        yield from _told(predicted, real)
        if predicted.score is not None and real.score is not None:
            errors.append(abs(predicted.score - real.score))
    if errors:
        yield row("budget/profile_error", fmean(errors), "points", note=note)
    first = (
        [p.first_learner_s for p in wide if p.first_learner_s],
        [p.first_learner_s for p in narrow if p.first_learner_s],
    )
    if all(first):
        guess = fmean(first[0]) / found.faster.start
        yield row(
            "budget/profile_error/first_learner_s", guess, "s", fmean(first[1]), note="predicted, measured"
        )
    before = [
        fmean(_before_search_s(p, found.faster) for p in wide),
        fmean(_before_search_s(p) for p in narrow),
    ]
    yield row("budget/profile_error/before_search_s", before[0], "s", before[1], note="predicted, measured")


def _before_search_s(point: Point, faster: object = None) -> float:
    """Seconds of the stages that do not grow with the budget, on the other machine where speeds are given."""
    parts = {stage: s for stage, s in point.seconds.items() if stage in BEFORE_SEARCH}
    if faster is None:
        return sum(parts.values())
    fixed = point.model_copy(update={"seconds": parts, "time_budget_s": 0.0})
    return scale_seconds(fixed, faster)  # type: ignore[arg-type]


def _told(predicted: PredictedPoint, real: Point) -> Iterator[Row]:
    name = f"budget/profile_error/{real.time_budget_s:g}s"
    if predicted.score is None:
        print(f"{name}: {predicted.reason}")
        return
    note = f"predicted ± {predicted.ci95 or 0:.1f}, worth {predicted.worth_s or 0:.0f} s of two processors"
    yield row(name, predicted.score, "%", real.score, ci95=predicted.ci95, note=note)


def measure_work(rounds: int) -> Iterator[Row]:
    """Seconds of a fixed piece of work on one processor, predicted from those on all, against measured ones."""
    here = measured("here", 1.0)
    wide_s = [float(text) for text in run_python(WORK, rounds).split()]
    with one_processor():
        there = measured("one processor", 1.0)
        narrow_s = [float(text) for text in run_python(WORK, rounds).split()]
    faster = there.faster_than(here)
    for kind, all_s, one_s in zip(("embedding", "heads"), wide_s, narrow_s, strict=True):
        yield row(
            f"budget/profile_error/work/{kind}", all_s / getattr(faster, kind), "s", one_s, note="predicted"
        )
    predicted_s = wide_s[0] / faster.embedding + wide_s[1] / faster.heads
    error = 100 * abs(predicted_s / sum(narrow_s) - 1)
    yield row("budget/profile_error", error, "% of the seconds", note="a fixed piece of work, one processor")
    yield from _speeds(faster)


def _speeds(faster: object) -> Iterator[Row]:
    for kind in KINDS:
        yield row(f"budget/profile_speed/{kind}", getattr(faster, kind), "of two", note="one processor")


def measure_runs(dataset: Path, seed: int) -> Iterator[Row]:
    """The runs, and what was predicted for those on one processor."""
    here = measured("here", 2.0)
    wide = [run_point(dataset, budget_s, seed, here.cores) for budget_s in WIDE_S]
    with one_processor():
        there = measured("one processor", 2.0)
        narrow = [run_point(dataset, budget_s, seed, 1) for budget_s in NARROW_S]
    yield from compare(wide, narrow, here, there, f"{dataset.name}, seed {seed}, {SETTINGS}")
    yield from _speeds(there.faster_than(here))


def main() -> None:
    """Parse the command line, measure, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="a fixed piece of work in place of runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--data", type=Path, help="folder of datasets")
    parser.add_argument("--dataset", default="CLIPART")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.data is None and not asked.quick:
        parser.error("--data DIR: give the folder of datasets, or --quick")
    began = time.monotonic()
    report = Report(asked.json, SETTINGS, resume=False)
    found = measure_work(10) if asked.quick else measure_runs(asked.data / asked.dataset, asked.seed)
    for one in found:
        report.add([one])
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
