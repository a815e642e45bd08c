"""From the files of a run to a point of the grid."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autometa.core.sharing import (
    BEFORE_FILE,
    CHARGE_FILE,
    PEAK_FILE,
    read_charge,
    read_charge_before_test,
    read_peak,
)
from autometa.core.units import show_bytes
from autometa.planning.choice_log import CHOICES_FILE
from autometa.planning.stage_log import STAGES_FILE
from autometa.tuning.grid import Place
from autometa.tuning.point import Point, Status
from ingestion import IngestionResult
from ingestion.meta_test import MEMORY_FILE
from ingestion.outputs import IDENTITY_FILE, RECORD_FILE
from ingestion.resume import RunIdentity
from scoring import ScoreSummary
from scoring.choices import read_choices
from scoring.stage_times import read_stage_times

MAIN_METRIC = "normalized_accuracy"
OWN_FILES = (CHARGE_FILE, BEFORE_FILE, PEAK_FILE, STAGES_FILE, CHOICES_FILE, "journal.jsonl")
"""In the folder of the learner, but no part of it."""
SHORT = (
    "ran out of time", "time budget was used up", "no time was left", "time budget ended", "memory, the budget is",
    "out of memory",
)  # fmt: skip
"""In what ingestion, the budgets and PyTorch say where a run ends for want of time or memory."""


def collect_point(
    place: Place, result: IngestionResult, summary: ScoreSummary | None, *, shares: bool
) -> Point:
    """What came of a run; `summary` None: there was nothing to score; `shares`: it took over what others have
    done."""
    folder = result.output_dir
    model = folder / "model"
    shared = _Shared.of(model) if shares else _Shared()
    measured, predicted = _read_stages(folder, result, shared)
    status, reason = _judge(place, result, measured["total"])
    if summary is None and status == "ok":
        status, reason = "failed", "ingestion worked, scoring did not"
    found: dict[str, Any] = {}
    if summary is not None:
        found = {
            "score": 100 * summary.overall.mean,
            "ci95": 100 * summary.overall.ci95 if summary.overall.tasks > 1 else None,
            "score_per_task": _task_scores(summary.output_dir),
        }
    choices, _ = read_choices(folder, None)  # what is wrong with a file is a note of scoring
    served, members = (choices.served, choices.members) if choices else ((), ())
    return Point(
        **place.model_dump(),
        status=status,
        reason=reason,
        seconds=measured,
        charged_s=shared.charged_s,
        predicted_s=predicted,
        first_learner_s=served[0].seconds if served else None,
        peak_bytes=_read_peak_bytes(folder, shared),
        gpu_peak_bytes=_read_gpu_peak(folder),
        model_bytes=_count_model_bytes(model),
        tasks=_hash_tasks(folder),
        chosen=[member.name for member in members if member.kind != "mode"],
        **found,
    )


def _judge(place: Place, result: IngestionResult, total_s: float) -> tuple[Status, str]:
    """Whether the run fitted its budgets. Ingestion ends what takes too much, and says so; a run that ends for
    another reason failed."""
    ended = [note for note in result.notes if is_short(note) or "ended early" in note]
    if not result.succeeded:
        reasons = [*ended, *result.failures.values(), "interrupted"]
        short = next(filter(is_short, reasons), None)
        return ("failed", reasons[0]) if short is None else ("does_not_fit", short)
    if result.failures:
        failures = sorted(result.failures.items())
        short_task = next((each for each in failures if is_short(each[1])), None)
        task, why = short_task or failures[0]
        told = f"{len(failures)} of {result.tasks} tasks have no answer (task {task}: {why})"
        return ("failed" if short_task is None else "does_not_fit"), told
    if total_s > place.time_budget_s:
        return "does_not_fit", f"took {total_s:.1f} s, {total_s - place.time_budget_s:.1f} s too long"
    return "ok", "; ".join(ended)


def is_short(reason: str) -> bool:
    """Whether a run, or a task, ended for want of time or memory."""
    return any(sign in reason for sign in SHORT)


@dataclass(frozen=True)
class _Shared:
    """What a run took over from others: seconds that it was charged, those of them before meta-test, and the memory
    that the work took. Only of a submission that is trusted to share: another one may write what it likes."""

    charged_s: float = 0.0
    before_s: float = 0.0
    peak_bytes: int | None = None

    @classmethod
    def of(cls, model: Path) -> _Shared:
        """As its processes wrote it down in the folder of the learner."""
        return cls(read_charge(model), read_charge_before_test(model), read_peak(model))


def _read_stages(
    folder: Path, result: IngestionResult, shared: _Shared
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds measured and predicted by stage, as of a run alone: the phases of ingestion with what their processes
    were charged, the stages of the submission, and `total`."""
    measured = {name: round(seconds, 3) for name, seconds in result.seconds.items()}
    for name, more_s in (
        ("meta_train", shared.before_s),
        ("meta_test", shared.charged_s - shared.before_s),
        ("total", shared.charged_s),
    ):
        measured[name] = round(measured.get(name, 0.0) + more_s, 3)
    predicted = {}
    for stage in read_stage_times(folder, None)[0]:
        if stage.actual_s is not None and stage.stage not in measured:
            measured[stage.stage] = stage.actual_s
        if stage.predicted_s is not None:
            predicted[stage.stage] = stage.predicted_s
    return measured, predicted


def _hash_tasks(folder: Path) -> str:
    """A digest of what the tasks of a run follow from, which is not the size of the images; "" where the run ended
    before it was known."""
    file = folder / IDENTITY_FILE
    if not file.exists():
        return ""
    identity = RunIdentity.model_validate_json(file.read_text("utf-8"))
    form = {name: value for name, value in identity.tasks.items() if name != "image_size"}
    text = json.dumps([identity.dataset, identity.seed, identity.protocol, form], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _task_scores(folder: Path) -> list[float]:
    """In per cent, in the order of the tasks."""
    details = json.loads((folder / "details.json").read_text("utf-8"))
    rows = sorted(details["tasks"], key=lambda row: row["task"])
    return [round(100 * row["metrics"][MAIN_METRIC], 4) for row in rows]


def _read_peak_bytes(folder: Path, shared: _Shared) -> int | None:
    """The most memory of all phases, with what was taken over from other runs."""
    phases = _read_object(folder / MEMORY_FILE)
    peaks = [int(each) for each in phases.values()] + ([shared.peak_bytes] if shared.peak_bytes else [])
    return max(peaks, default=None)


def _read_gpu_peak(folder: Path) -> int | None:
    """The most GPU memory that was seen in use, where it was watched."""
    peak: int | None = _read_object(folder / RECORD_FILE).get("gpu_peak_bytes")
    return peak


def _read_object(file: Path) -> dict[str, Any]:
    """What ingestion wrote; empty where it wrote nothing."""
    return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def _count_model_bytes(model: Path) -> int | None:
    sizes = [
        file.stat().st_size for file in model.rglob("*") if file.is_file() and file.name not in OWN_FILES
    ]
    return sum(sizes) or None


def names_memory(folder: Path) -> bool:
    """Whether a run says that it left something out, or did it in parts, for want of memory."""
    file = folder / "submission.log"
    text = file.read_text("utf-8", errors="replace") if file.exists() else ""
    return any(sign in text for sign in ("GB left", "out of memory", "little memory", "not enough memory"))


def show_memory(n_bytes: int | None) -> str:
    """Bytes for people, to two places."""
    return "–" if n_bytes is None else f"{n_bytes / 1e9:.2f} GB"


def show_budget(n_bytes: int | None) -> str:
    """A budget of memory for people."""
    return "–" if n_bytes is None else show_bytes(n_bytes)
