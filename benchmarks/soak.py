"""One run of very many tasks: what its processes hold, sampled over time, must stay flat.

    python benchmarks/soak.py [--tasks 10000] [--submission DIR|NAME] [--json FILE]
    python benchmarks/soak.py --fail-every 100
    python benchmarks/soak.py --quick

The run is `run_local.py` with its child processes, on the demo at 16 px, with tasks of 2 to 5 ways. By default it
plays a bundle that answers with the nearest mean of the colours, so that the tasks themselves take little; with
--fail-every that ends its process at times, so that another one is started. Sampled are: memory of its own (USS) of
ingestion and of the submission's processes, descriptors, threads, processes, and files in its temporary folder and in
/dev/shm. The slope is per 1,000 tasks, after the first fifth. Exit status 1 if
something grows, even at the lower end of the interval of its slope. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from _flatness import Sampler, Verdict, count_entries, growth_row
from _learner_report import Report, Row, row
from _toy_bundle import write_bundle

from run_local import DEMO, ROOT

PER = 1000
SLACK = {"mb": 8.0, "descriptors": 2.0, "threads": 2.0, "processes": 1.0}
"""What may be gained over the whole run and still counts as flat."""
FILES_SLACK = 2.0
SHARED_MEMORY = Path("/dev/shm")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--tasks", type=int, help="10,000 by default, 1,500 if quick")
    add("--submission", help="a bundle, or a baseline by name; one that answers by colour by default")
    add(
        "--fail-every",
        type=int,
        default=0,
        help="the bundle by colour ends its process at every so many tasks",
    )
    add("--time-budget", default="4h", help="of the run; autometa would use it for its search")
    add("--memory-budget", default="3GB")
    add("--px", type=int, default=16, help="size of the images")
    add("--every", type=float, help="seconds between two samples; 1 by default, 0.2 if quick")
    add("--json", type=Path, help="write the rows to this file")
    add("--quick", action="store_true", help="1,500 tasks: shows that it works, says little")
    options = parser.parse_args(given)
    options.tasks = options.tasks or (1500 if options.quick else 10_000)
    options.every = options.every or (0.2 if options.quick else 1.0)
    return options


def command(options: argparse.Namespace, folder: Path) -> list[str]:
    """The command line of the run."""
    submission = options.submission
    if submission is None:
        every = options.fail_every
        faults = {"predict": f"if MyLearner.fitted % {every} == 0: os._exit(1)"} if every else {}
        submission = write_bundle(folder / "bundle", **faults)
    asked = {
        "dataset": DEMO / "LETTERS", "submission": submission, "output": folder / "out", "image-size": options.px,
        "tasks-per-dataset": options.tasks, "ways": "2-5", "shots": "1-2", "query-per-class": 2,
        "time-budget": options.time_budget, "memory-budget": options.memory_budget,
    }  # fmt: skip
    given = [str(part) for name, value in asked.items() for part in (f"--{name}", value)]
    return [sys.executable, str(ROOT / "run_local.py"), "--quiet", *given]


def soak(options: argparse.Namespace, folder: Path) -> tuple[Sampler, float]:
    """Run it and sample; the samples, and seconds of meta-test. SystemExit says why the run failed."""
    temporary, results = folder / "tmp", folder / "out" / "ingestion"
    temporary.mkdir()
    with (folder / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            command(options, folder),
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(temporary), "COLUMNS": "200"},
        )
        parent = psutil.Process(process.pid)
        sampler = Sampler(
            step=lambda: count_done(results),
            parts={"ingestion": lambda: [parent], "submission": lambda: children_of(parent)},
            count_files=lambda: count_entries(temporary, SHARED_MEMORY),
            every_s=options.every,
        )
        with sampler.running():
            shown = 0.0
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - shown > 60:
                    shown = time.monotonic()
                    print(f"{count_done(results)} of {options.tasks} tasks", file=sys.stderr, flush=True)
    if process.returncode:
        said = (folder / "printed.txt").read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise SystemExit(f"soak: the run failed with status {process.returncode}: {said[-1]}")
    return sampler, meta_test_s(results)


def count_done(results: Path) -> int:
    """Tasks whose prediction is on disk; 0 until the last process of meta-training has ended."""
    try:
        return sum(name.endswith(".predict") for name in os.listdir(results))  # noqa: PTH208 - of 10,000 files
    except FileNotFoundError:
        return 0


def children_of(parent: psutil.Process) -> list[psutil.Process]:
    """All processes below this one, sandboxes too; none if it has ended."""
    try:
        return parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def meta_test_s(results: Path) -> float:
    """Seconds of meta-test, as ingestion measured them."""
    record = json.loads((results / "ingestion.json").read_text(encoding="utf-8"))
    return float(next(stage["seconds"] for stage in record["stages"] if stage["name"] == "meta_test"))


def rows_of(sampler: Sampler, tasks: int, test_s: float, failed: int) -> list[Row]:
    """What was measured."""
    found = sampler.verdicts(tasks)
    units = {"mb": "MB per 1,000 tasks", "descriptors": "per 1,000 tasks", "threads": "per 1,000 tasks"}
    made = [
        growth_row(f"soak/{name}", verdict, units.get(what_of(name), "per 1,000 tasks"), per=PER, steps=tasks,
                   slack=slack_of(name))
        for name, verdict in found.items()
    ]  # fmt: skip
    samples = len([step for step in sampler.steps if 0 < step < tasks])
    return [
        *made,
        row("soak/failed_tasks", failed, "tasks", note=f"of {tasks}"),
        row("soak/seconds_per_task", test_s / tasks, "s", note=f"{samples} samples"),
    ]


def what_of(name: str) -> str:
    """The quantity that a slope is of."""
    return name.rpartition("/")[2]


def slack_of(name: str) -> float:
    """What may be gained of it."""
    return SLACK.get(what_of(name), FILES_SLACK)


def growing(found: dict[str, Verdict], tasks: int) -> list[str]:
    """What grows."""
    return [name for name, verdict in found.items() if verdict.grows(tasks, slack_of(name))]


def main() -> None:
    """Run, and report."""
    options = arguments()
    if sys.platform != "linux":
        raise SystemExit("soak: processes are sampled as Linux shows them")
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        sampler, test_s = soak(options, folder)
        record = json.loads((folder / "out" / "ingestion" / "ingestion.json").read_text(encoding="utf-8"))
    played = options.submission or "nearest colour"
    faults = f", ends its process at every {options.fail_every}th task" if options.fail_every else ""
    settings = f"{options.tasks} tasks of 2-5 ways at {options.px} px, {played}{faults}"
    rows = rows_of(sampler, options.tasks, test_s, len(record["failures"]))
    Report(options.json, settings, resume=False).add(rows)
    if grown := growing(sampler.verdicts(options.tasks), options.tasks):
        raise SystemExit(f"soak: grows: {', '.join(grown)}")


if __name__ == "__main__":
    main()
