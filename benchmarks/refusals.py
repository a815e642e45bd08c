"""How long a program takes to refuse what is wrong, beyond its start: seconds until its line is there.

    python benchmarks/refusals.py [--json FILE]
    python benchmarks/refusals.py --quick

Every hostile bundle of the tests goes to `python -m ingestion`; places that cannot be used and damaged models go to
`autometa`. A row is the time of a whole program, less that of the same one where something is missing (the median of
five, or of three if quick). A row of more than a second is measured again, three times in all, and the least counts:
other work on the machine only adds to it. Exit status 1 if something is not refused by one line, or takes more than a
second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _learner_report import Report, Row, row

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
sys.path.insert(0, str(ROOT / "tests" / "bundles"))

from hostile_bundles import HOSTILE  # noqa: E402 - lies among the tests

LIMIT_S = 1.0
STARTS, QUICK_STARTS, TRIES = 5, 3, 3
INGESTION = ("-m", "ingestion")
AUTOMETA = ("-m", "autometa")
CLASSIFY = (*AUTOMETA, "classify")
REFERENCE: dict[tuple[str, ...], Sequence[str]] = {
    INGESTION: (),
    AUTOMETA: ("classify",),
    CLASSIFY: (str(DEMO / "LETTERS"), str(DEMO)),
}
"""Arguments with which a program ends as soon as it has started, as something is missing. `classify` starts with
PyTorch; that a folder has no classifier is the first that it says then."""


@dataclass(frozen=True)
class Fault:
    """What is wrong: a name, the program and its arguments, changes of the environment (None: not set)."""

    name: str
    program: tuple[str, ...]
    arguments: Sequence[str]
    environment: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A program that has ended: its status, what it said on stderr, seconds."""

    status: int
    lines: Sequence[str]
    seconds: float


def play(fault: Fault) -> Ended:
    """Run the program."""
    changed = {**os.environ, **fault.environment}
    environment = {name: value for name, value in changed.items() if value is not None}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *fault.program, *fault.arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stderr.strip().splitlines(), time.monotonic() - began)


def list_bundles(folder: Path) -> Iterator[Fault]:
    """All hostile bundles of the tests."""
    for number, hostile in enumerate(HOSTILE):
        made = folder / f"bundle-{number}"
        made.mkdir()
        output = folder / f"out-{number}"
        arguments = [
            f"--submission_dir={hostile.make(made)}", f"--output_dir_ingestion={output}", f"--input_data_dir={DEMO}"
        ]  # fmt: skip
        yield Fault(f"bundle/{hostile.name.replace('/', ' ')}", INGESTION, arguments)


def list_places(folder: Path) -> Iterator[Fault]:
    """Outputs and caches that cannot be used, no home, models that are damaged."""
    file = folder / "file"
    file.write_text("in the way")
    run = ["run", "--dataset", str(DEMO), "--time-budget", "60s", "--output"]
    yield Fault("output/a file is in the way", AUTOMETA, [*run, str(file)])
    yield Fault("output/below a file", AUTOMETA, [*run, str(file / "out")])
    yield Fault("cache/below a file", AUTOMETA, [*run, str(folder / "o1")],
                {"AUTOMETA_CACHE_DIR": str(file / "cache")})  # fmt: skip
    yield Fault("cache/home below a file", AUTOMETA, [*run, str(folder / "o2")],
                {"AUTOMETA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": str(file)})  # fmt: skip
    yield Fault(
        "dataset/missing", AUTOMETA, ["run", "--dataset", str(folder / "none"), "-o", str(folder / "o3")]
    )
    for name, content in {"cut": "{", "empty": "", "other": '{"format": "other-9"}'}.items():
        model = folder / f"model-{name}"
        model.mkdir()
        (model / "classifier.json").write_text(content)
        yield Fault(f"model/{name}", CLASSIFY, [str(model), str(DEMO)])


def measure(fault: Fault, start_s: float) -> tuple[Row, str]:
    """The row of a fault, and what is wrong with how it was refused, if something is."""
    extra_s, wrong = float("inf"), ""
    for _ in range(TRIES):
        ended = play(fault)
        extra_s = min(extra_s, max(ended.seconds - start_s, 0.0))
        if ended.status == 0 or len(ended.lines) != 1 or "Traceback" in ended.lines[0]:
            wrong = f"{fault.name}: status {ended.status}, {len(ended.lines)} lines: {ended.lines[-1:]}"
        if extra_s <= LIMIT_S:
            break
    if not wrong and extra_s > LIMIT_S:
        wrong = f"{fault.name}: {extra_s:.2f} s beyond the start"
    return row(f"refusals/{fault.name}", extra_s, "s", LIMIT_S), wrong


def main() -> None:
    """Refuse everything, and report."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="every eighth row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    asked = parser.parse_args()
    report, troubles = Report(asked.json, "whole programs, one at a time", resume=False), list[str]()
    times = QUICK_STARTS if asked.quick else STARTS
    starts = {
        program: statistics.median(play(Fault("start", program, arguments)).seconds for _ in range(times))
        for program, arguments in REFERENCE.items()
    }
    for program, seconds in starts.items():
        report.add([row(f"refusals/start/{program[-1]}", seconds, "s")])
    with tempfile.TemporaryDirectory(prefix="refusals-") as name:
        faults = [*list_bundles(Path(name)), *list_places(Path(name))]
        for fault in faults[:: 8 if asked.quick else 1]:
            one, wrong = measure(fault, starts[fault.program])
            report.add([one])
            troubles += [wrong] if wrong else []
    if troubles:
        raise SystemExit("refusals: " + "; ".join(troubles))


if __name__ == "__main__":
    main()
