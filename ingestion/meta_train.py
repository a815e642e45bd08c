"""The meta-train phase: one child, which must save a learner in the model folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.contract import Limits
from ingestion.disk import TooMuchError, entries
from ingestion.errors import SubmissionError
from ingestion.prepare import Prepared
from ingestion.process import LaunchPlan, SubmissionProcess
from ingestion.settings import Event, IngestionSettings, OnEvent
from ingestion.shared_images import shared_parts
from ingestion.stages import CHOICES_FILE, STAGES_FILE
from ingestion.terminal import HURRY_S, first_interrupt

RECORDS = frozenset({STAGES_FILE, CHOICES_FILE, "journal.jsonl"})
"""In the model folder, but no learner."""
INTERRUPTED = "interrupted: the learner saved before answers the tasks; interrupt again to stop the run"


@dataclass(frozen=True)
class Beside:
    """What there is beside meta-training: the memory of the processes `pids` counts too; `hurry` hears by when
    everything must be done, where a signal leaves little time."""

    pids: tuple[int, ...] = ()
    hurry: Callable[[float], None] = lambda _: None


def meta_train(
    prepared: Prepared,
    plan: LaunchPlan,
    limits: Limits,
    settings: IngestionSettings,
    on_event: OnEvent,
    *,
    beside: Beside | None = None,
) -> str:
    """Let the submission meta-train and save. Returns "" or why it ended early; meta-test then uses what
    was saved before.

    The first Ctrl-C or SIGTERM ends it early where a learner was saved and there is time to use it. KeyboardInterrupt
    where not, and at the second one.
    """
    beside = beside or Beside()
    model_dir = settings.model_folder
    with (
        first_interrupt() as interrupt,
        shared_parts(prepared.train, prepared, plan) as train,
        shared_parts(prepared.valid, prepared, plan) as valid,
    ):
        fds, mounted = train.fds + valid.fds, train.mounted + valid.mounted
        with SubmissionProcess(plan, fds=fds, mounted=mounted, beside=beside.pids) as child:
            deadline, told = limits.meta_train_deadline, _describe(prepared, settings)
            try:
                child.send("meta-train", deadline, **told, train=train.described, valid=valid.described)
                child.await_reply("saved", deadline, "meta-training", stop=lambda: interrupt.asked)
            except SubmissionError as error:
                if not interrupt.asked:
                    return _ended_early(error, model_dir, on_event)
            if interrupt.asked:
                if interrupt.hurries:
                    beside.hurry(time.monotonic() + HURRY_S)
                return _interrupted(model_dir, limits, on_event)
    return ""


def _describe(prepared: Prepared, settings: IngestionSettings) -> dict[str, Any]:
    """What the submission is told beside its images."""
    return {
        "bundle": str(prepared.bundle),
        "config": prepared.config.model_dump(),
        "model_dir": str(settings.model_folder.resolve()),
        "log_dir": str((settings.output_dir / "logs").resolve()),
        "seed": settings.seed,
        "verbose": settings.verbose,
    }


def _interrupted(model_dir: Path, limits: Limits, on_event: OnEvent) -> str:
    """Go on with what was saved; KeyboardInterrupt where that is nothing, or too late."""
    is_late = limits.deadline is not None and time.monotonic() >= limits.deadline
    if is_late or not has_learner(model_dir):
        raise KeyboardInterrupt
    on_event(Event("note", INTERRUPTED))
    return "interrupted"


def _ended_early(error: SubmissionError, model_dir: Path, on_event: OnEvent) -> str:
    if error.traceback:
        on_event(Event("failure", error.traceback.rstrip()))
    goes_on = "meta-test uses the learner saved before" if has_learner(model_dir) else "nothing was saved"
    on_event(Event("failure", f"meta-train ended early: {error.reason}; {goes_on}"))
    return error.reason


def has_learner(model_dir: Path) -> bool:
    """Whether any file was saved but records of what was done. A link is none: it may lead anywhere, or to itself."""
    try:
        return any(entry.is_file and Path(entry.path).name not in RECORDS for entry in entries(model_dir))
    except (TooMuchError, OSError):
        return False
