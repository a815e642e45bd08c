"""The meta-train phase: one child, which must save a learner in the model folder."""

from __future__ import annotations

from pathlib import Path

from ingestion.contract import Limits
from ingestion.disk import TooMuchError, entries
from ingestion.errors import SubmissionError
from ingestion.prepare import Prepared
from ingestion.process import LaunchPlan, SubmissionProcess
from ingestion.settings import Event, IngestionSettings, OnEvent
from ingestion.shared_images import shared_parts


def meta_train(
    prepared: Prepared,
    plan: LaunchPlan,
    limits: Limits,
    settings: IngestionSettings,
    on_event: OnEvent,
    *,
    beside: tuple[int, ...] = (),
) -> str:
    """Let the submission meta-train and save. Returns "" or why it ended early; meta-test then uses what
    was saved before. The memory of the processes `beside` counts too."""
    model_dir, log_dir = settings.output_dir / "model", settings.output_dir / "logs"
    with (
        shared_parts(prepared.train, prepared, plan) as train,
        shared_parts(prepared.valid, prepared, plan) as valid,
    ):
        fds, mounted = train.fds + valid.fds, train.mounted + valid.mounted
        with SubmissionProcess(plan, fds=fds, mounted=mounted, beside=beside) as child:
            try:
                child.send(
                    "meta-train",
                    limits.meta_train_deadline,
                    bundle=str(prepared.bundle),
                    config=prepared.config.model_dump(),
                    model_dir=str(model_dir.resolve()),
                    log_dir=str(log_dir.resolve()),
                    seed=settings.seed,
                    verbose=settings.verbose,
                    train=train.described,
                    valid=valid.described,
                )
                child.await_reply("saved", limits.meta_train_deadline, "meta-training")
            except SubmissionError as error:
                return _ended_early(error, model_dir, on_event)
    return ""


def _ended_early(error: SubmissionError, model_dir: Path, on_event: OnEvent) -> str:
    if error.traceback:
        on_event(Event("failure", error.traceback.rstrip()))
    goes_on = "meta-test uses the learner saved before" if has_learner(model_dir) else "nothing was saved"
    on_event(Event("failure", f"meta-train ended early: {error.reason}; {goes_on}"))
    return error.reason


def has_learner(model_dir: Path) -> bool:
    """Whether anything was saved."""
    try:
        return any(entry.is_file() for entry in entries(model_dir))
    except TooMuchError:
        return False
