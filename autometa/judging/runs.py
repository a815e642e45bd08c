"""A unit as a run of `autometa run` in a process of its own, with the limits and the sandbox that this has."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autometa.judging import starter
from autometa.judging.executor import failed_row
from autometa.judging.ledger import Row
from autometa.judging.options import JudgeOptions, run_flags
from autometa.judging.outcome import read_outcome
from autometa.judging.programs import Ended, Programs
from autometa.judging.submissions import Unit
from ingestion.disk import remove

PROGRAM = Path(starter.__file__)
GRACE_S = 600.0
"""Seconds beyond its time budget after which a run is ended from outside: what it may take to start and to score."""
MOST_PRINTED = 64 * 1024
"""Bytes at the end of what a run printed, in which its last line is looked for."""


@dataclass
class RunPlayer:
    """Does runs. `folder`: of the judging, where the files of a run are in `runs/NAME/SEED`; `memory_bytes`: the
    memory budget of each run; `variables`: of its environment, in addition."""

    folder: Path
    dataset: Path
    options: JudgeOptions
    memory_bytes: int
    programs: Programs = field(default_factory=Programs)
    variables: Mapping[str, str] = field(default_factory=dict)

    def play(self, unit: Unit) -> Row | None:
        """Do a run and keep its files; None if it was stopped. OSError where its folder cannot be made."""
        output = run_folder(self.folder, unit.submission.name, unit.seed)
        remove(output)  # of a run that was killed
        output.parent.mkdir(parents=True, exist_ok=True)
        printed = log_of(output)
        temporary = tempfile.mkdtemp(prefix="judging-")
        try:
            limit_s = self.options.time_budget + GRACE_S
            variables = {**self.variables, "TMPDIR": temporary}
            ended = self.programs.run(self.command(unit, output), printed, limit_s, variables)
        finally:
            remove(Path(temporary))  # a run that is killed leaves what its submission has written
        if ended is None:
            return None
        row = make_row(unit, output, ended, last_text(printed))
        if not self.options.keep_learners:
            remove(output / "ingestion" / "model")
        return row

    def command(self, unit: Unit, output: Path) -> list[str]:
        """The command line of the run."""
        own = {
            "dataset": self.dataset,
            "submission": unit.submission.path.absolute(),
            "seed": unit.seed,
            "memory-budget": f"{self.memory_bytes}B",
            "output": output,
        }
        given = [str(part) for name, value in own.items() for part in (f"--{name}", value)]
        return [sys.executable, str(PROGRAM), str(os.getpid()), "--quiet", *given, *run_flags(self.options)]


def run_folder(folder: Path, name: str, seed: int) -> Path:
    """Where the files of a run are."""
    return folder / "runs" / name / str(seed)


def log_of(output: Path) -> Path:
    """Where what the program of a run printed is."""
    return output.with_name(f"{output.name}.log")


def make_row(unit: Unit, output: Path, ended: Ended, said: str) -> Row:
    """The row of a run that has ended, from its files."""
    if ended.late:
        row = failed_row(unit, f"the run did not end by itself and was ended after {ended.wall_s:.0f} s")
        return row.model_copy(update={"wall_s": ended.wall_s, "exit_status": ended.exit_status})
    found = read_outcome(output, ended.exit_status, said)
    return Row(
        submission=unit.submission.name,
        seed=unit.seed,
        digest=unit.submission.digest,
        status="failed" if found.failed else "ok",
        reason=found.reason,
        exit_status=ended.exit_status,
        accuracies=found.accuracies,
        drawn=found.drawn,
        unanswered=found.unanswered,
        wall_s=round(ended.wall_s, 3),
        machine=found.machine,
    )


def last_text(file: Path) -> str:
    """The end of what a run printed."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - MOST_PRINTED, 0))
        return stream.read().decode(errors="replace")
