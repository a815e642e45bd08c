"""Units of the arena: each is a run of `run_local.py` in a separate process, whose result is saved to a file."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from _arena_results import Reported, Result

from autometa.judging.outcome import read_json, read_outcome
from autometa.judging.programs import Ended, Programs
from autometa.judging.runs import GRACE_S
from autometa.judging.submissions import bundle_name
from ingestion.outputs import LOG_FILE, write_atomically
from run_local import ROOT

PROGRAM = ROOT / "run_local.py"
FIRST_LEARNER = re.compile(r"learner on disk \(.*?([0-9.]+) s after the start\)")


@dataclass(frozen=True)
class Unit:
    """A bundle on a dataset, by their paths, within a budget."""

    bundle: Path
    dataset: Path
    budget_s: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return bundle_name(self.bundle)

    @property
    def file(self) -> str:
        """Name of the file of the result."""
        return f"{self.name}--{self.dataset.name}--{self.budget_s:g}s--{self.seed}.json"

    def command(self, settings: str, output: Path) -> list[str]:
        """The command line of the run."""
        own: dict[str, Any] = {"dataset": self.dataset, "submission": self.bundle, "output": output}
        own |= {"time-budget": f"{self.budget_s:g}s", "seed": self.seed}
        given = [str(part) for name, value in own.items() for part in (f"--{name}", value)]
        return [sys.executable, str(PROGRAM), *given, *settings.split()]


def datasets_in(folder: Path) -> list[str]:
    """Names of the datasets in Meta-Album layout that lie in a folder."""
    return sorted(file.parent.name for file in folder.glob("*/labels.csv"))


def cross_domain(data: Path, train: Sequence[str], test: Sequence[str], into: Path) -> Path:
    """A folder in `into` that declares these datasets of `data` for meta-training and for meta-test, as a MetaDL root
    does, with links to them."""
    root = into / cross_domain_name(train, test)
    (root / "info").mkdir(parents=True, exist_ok=True)
    for name in (*train, *test):
        if not (root / name).exists():
            (root / name).symlink_to((data / name).resolve())
    splits = json.dumps({"meta-train": list(train), "meta-test": list(test)})
    write_atomically(root / "info" / "meta_splits.txt", splits)
    return root


def cross_domain_name(train: Sequence[str], test: Sequence[str]) -> str:
    """What is called in results to train on some datasets and to test on others: `A+B->C`."""
    return f"{'+'.join(train)}->{'+'.join(test)}"


def stored(folder: Path) -> dict[str, Result]:
    """The results in a folder by the names of their files; ValueError names a file that is no result."""
    found = {}
    for file in sorted(folder.glob("*--*--*--*.json")):
        try:
            found[file.name] = Result.of(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}: no result of the arena ({error}); remove it") from error
    return found


@dataclass
class Runner:
    """Runs units and keeps their results; `stop` ends the current runs, which then have no result. A run that goes on
    for `grace_s` longer than its budget is ended."""

    folder: Path
    settings: str
    sharing: str = ""
    grace_s: float = GRACE_S
    _programs: Programs = field(default_factory=Programs)

    def run_all(self, units: Sequence[Unit], jobs: int) -> Iterator[Result]:
        """Yield the results of all units as they finish, some at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(jobs)
        try:
            for future in as_completed([pool.submit(self.run, unit) for unit in units]):
                if result := future.result():
                    yield result
        finally:
            self.stop()
            pool.shutdown(cancel_futures=True)

    def run(self, unit: Unit) -> Result | None:
        """Run one unit and keep its result; None if it was stopped."""
        with tempfile.TemporaryDirectory(prefix="arena-") as scratch:
            output, printed = Path(scratch) / "run", Path(scratch) / "printed.txt"
            command = unit.command(self.settings, output)
            ended = self._programs.run(command, printed, unit.budget_s + self.grace_s)
            if ended is None:
                return None
            said = printed.read_text(encoding="utf-8", errors="replace")
            result = replace(collected(unit, self.settings, output, ended, said), sharing=self.sharing)
            log = output / "ingestion" / LOG_FILE
            if log.exists():  # how the submission used its time
                (self.folder / unit.file).with_suffix(".log").write_bytes(log.read_bytes())
        write_atomically(self.folder / unit.file, json.dumps(asdict(result)))
        return result

    def stop(self) -> None:
        """Ask the current runs to end, and start no others."""
        self._programs.stop()


def describe_sharing(jobs: int) -> str:
    """What runs share: how many there are at a time, and with how many threads each computes."""
    return f"{jobs} at a time, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"


def collected(unit: Unit, settings: str, output: Path, ended: Ended, said: str) -> Result:
    """The result of a run, from its files and from what was seen of it from outside. A run that was interrupted, or
    that had to be ended, counts as not scored."""
    found = read_outcome(output, ended.exit_status, said)
    late = f"the run did not end by itself and was ended after {ended.wall_s:.0f} s" if ended.late else ""
    return Result(
        bundle=unit.name,
        dataset=unit.dataset.name,
        budget_s=unit.budget_s,
        seed=unit.seed,
        settings=settings,
        exit_status=ended.exit_status,
        accuracies=() if late else found.accuracies,
        drawn=found.drawn,
        wall_s=round(ended.wall_s, 3),
        counted_s=found.duration_s,
        overrun=found.duration_s > unit.budget_s or found.ran_out or ended.late,
        unanswered=found.unanswered,
        first_learner_s=first_learner_s(output / "ingestion" / LOG_FILE, found.record),
        reason=late or found.reason,
        machine=found.machine,
        reported=reported(output / "ingestion" / "model"),
        task_sets=() if late else found.task_sets,
        gpu_peak_bytes=found.record.get("gpu_peak_bytes"),
    )


def reported(folder: Path) -> Reported | None:
    """What the learner that a submission saved in `folder` says of itself. An interval comes as `interval`, its two
    ends, or as `ci95`, its half-width; None where the record holds no accuracy with one of them."""
    record = read_json(folder / "learner.json").get("validation", {})
    try:
        accuracy = float(record["normalised_accuracy"])
        if "interval" in record:
            low, high = map(float, record["interval"])
        else:
            low, high = accuracy - float(record["ci95"]), accuracy + float(record["ci95"])
    except (KeyError, TypeError, ValueError):  # other bundles may write anything
        return None
    return Reported(accuracy, low, high)


def first_learner_s(log: Path, record: dict[str, Any]) -> float | None:
    """Seconds from the start of the run to the first line of the submission about a learner on disk. The clock of the
    submission starts after ingestion has prepared the data."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    before = ("prepare", "decode")
    prepared_s = sum(stage["seconds"] for stage in record.get("stages", []) if stage["name"] in before)
    found = FIRST_LEARNER.search(text)
    return prepared_s + float(found[1]) if found else None
