"""What came of a run, read from the files that it left."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.outputs import RECORD_FILE, TRUTH_FILE

OUT_OF_TIME = ("ran out of time", "time budget was used up")
"""Messages of ingestion when it stops a submission for its budget."""
INTERRUPTED = "the run was interrupted"
MOST_REASON = 300


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run. `accuracies`: normalised accuracy of every task, 0 where it was not answered; empty if
    the run was not scored. `task_sets`: the dataset of every task. `drawn`: a fingerprint of the tasks, "" if there
    is no truth. `duration_s`: seconds of its time budget. `reason`: why it failed, or why its first task did."""

    exit_status: int
    accuracies: tuple[float, ...]
    task_sets: tuple[str, ...]
    drawn: str
    duration_s: float
    ran_out: bool
    unanswered: int
    reason: str
    machine: str
    record: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the run failed as a whole."""
        return self.exit_status != 0 or not self.accuracies


def read_outcome(folder: Path, exit_status: int, said: str) -> Outcome:
    """The outcome of a run with this output folder, exit status and printed text. A run that was interrupted counts
    as not scored."""
    record = read_json(folder / "ingestion" / RECORD_FILE)
    truth = folder / "ingestion" / TRUTH_FILE
    failures = list(record.get("failures", {}).values())
    notes = [*record.get("notes", []), *failures]
    interrupted = any(note.startswith("interrupted") for note in notes)
    tasks = [] if interrupted else read_json(folder / "scoring" / "details.json").get("tasks", [])
    why = [*failures, _told(exit_status, said, interrupted=interrupted) if exit_status or not tasks else ""]
    machine = record.get("machine", {})
    return Outcome(
        exit_status=exit_status,
        accuracies=tuple(task["metrics"]["normalized_accuracy"] for task in tasks),
        task_sets=tuple(task["dataset"] for task in tasks),
        drawn=hashlib.sha256(truth.read_bytes()).hexdigest()[:16] if truth.exists() else "",
        duration_s=record.get("duration_s", 0.0),
        ran_out=any(mark in note for note in notes for mark in OUT_OF_TIME),
        unanswered=sum(task["status"] != "ok" for task in tasks),
        reason=" ".join(why[0].split())[:MOST_REASON],
        machine=f"{machine.get('cores', '?')} cores, GPU {machine.get('gpus', '?')}",
        record=record,
    )


def _told(exit_status: int, said: str, *, interrupted: bool) -> str:
    """Why a run has no result: the signal that killed it, else the last line that it printed."""
    if exit_status < 0:
        return f"the run was killed by {signal.Signals(-exit_status).name}"
    if interrupted:
        return INTERRUPTED
    return said.strip().split("\n")[-1].strip() or f"the run ended with status {exit_status} and said nothing"


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
