"""Units of the arena: each is a run of `run_local.py` in a separate process, whose result is saved to a file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _arena_results import Reported, Result

from ingestion.outputs import write_atomically
from run_local import ROOT

PROGRAM = ROOT / "run_local.py"
FIRST_LEARNER = re.compile(r"learner on disk \(.*?([0-9.]+) s after the start\)")
OUT_OF_TIME = ("ran out of time", "time budget was used up")
"""Messages of ingestion when it stops a submission for its budget."""
GRACE_S = 600.0
"""Seconds beyond its budget after which a run is ended from outside."""
POLL_S = 0.5
"""Seconds between two checks whether runs were stopped."""
END_S = 60.0
"""Seconds that a run has to end after a signal."""


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


def bundle_name(path: Path) -> str:
    """What a bundle is called in results: its folder or zip."""
    return path.resolve().name.removesuffix(".zip")


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
    """Runs units and keeps their results; `stop` ends the current runs, which then have no result."""

    folder: Path
    settings: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

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
            process = self._start(unit.command(self.settings, output), printed)
            if process is None:
                return None
            self._wait(process, unit.budget_s + GRACE_S)
            if self._stopped:
                return None
            said = printed.read_text(encoding="utf-8", errors="replace")
            result = collected(unit, self.settings, output, process.returncode, said)
            log = output / "ingestion" / "submission.log"
            if log.exists():  # how the submission used its time
                (self.folder / unit.file).with_suffix(".log").write_bytes(log.read_bytes())
        write_atomically(self.folder / unit.file, json.dumps(asdict(result)))
        return result

    def stop(self) -> None:
        """Ask the current runs to end, and start no others."""
        with self._lock:
            self._stopped = True

    def _start(self, command: list[str], printed: Path) -> subprocess.Popen[bytes] | None:
        """A run that prints to a file, in its own session, so that Ctrl-C only reaches it through `stop`."""
        environment = os.environ | {"COLUMNS": "200"}
        with self._lock, printed.open("wb") as out:
            if self._stopped:
                return None
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Wait until the run has ended. If it is late, or all runs should stop, it gets signals and is killed at
        last, since a signal can be lost while Python starts."""
        deadline = time.monotonic() + seconds
        while not self._stopped and time.monotonic() < deadline:
            if _ended(process, POLL_S):
                return
        for told in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            process.send_signal(told)
            if _ended(process, END_S):
                return


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ends within this many seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def collected(unit: Unit, settings: str, output: Path, exit_status: int, said: str) -> Result:
    """The result of a run, from its files. A run that was interrupted counts as not scored."""
    record = content(output / "ingestion" / "ingestion.json")
    truth = output / "ingestion" / "truth.json"
    notes = [*record.get("notes", []), *record.get("failures", {}).values()]
    interrupted = any(note.startswith("interrupted") for note in notes)
    tasks = [] if interrupted else content(output / "scoring" / "details.json").get("tasks", [])
    wall_s = record.get("duration_s", 0.0)
    last = said.strip().split("\n")[-1].strip() if exit_status or not tasks else ""
    why = [*record.get("failures", {}).values(), last]
    machine = record.get("machine", {})
    return Result(
        bundle=unit.name,
        dataset=unit.dataset.name,
        budget_s=unit.budget_s,
        seed=unit.seed,
        settings=settings,
        exit_status=exit_status,
        accuracies=tuple(task["metrics"]["normalized_accuracy"] for task in tasks),
        drawn=hashlib.sha256(truth.read_bytes()).hexdigest()[:16] if truth.exists() else "",
        wall_s=wall_s,
        overrun=wall_s > unit.budget_s or any(mark in note for note in notes for mark in OUT_OF_TIME),
        unanswered=sum(task["status"] != "ok" for task in tasks),
        first_learner_s=first_learner_s(output / "ingestion" / "submission.log", record),
        reason=" ".join(why[0].split())[:300],
        machine=f"{machine.get('cores', '?')} cores, GPU {machine.get('gpus', '?')}",
        reported=reported(output / "ingestion" / "model"),
        task_sets=tuple(task["dataset"] for task in tasks),
    )


def reported(folder: Path) -> Reported | None:
    """What the learner that a submission saved in `folder` says of itself. An interval comes as `interval`, its two
    ends, or as `ci95`, its half-width; None where the record holds no accuracy with one of them."""
    record = content(folder / "learner.json").get("validation", {})
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


def content(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
