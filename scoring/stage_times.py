"""Predicted and actual seconds of the stages of a submission: `stages.json`, which is not trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.files import read_optional
from scoring.text import one_line

if TYPE_CHECKING:
    from scoring.stage_times_file import StageRow

STAGES_FILE = "stages.json"
META_TEST = "meta_test"
LONGEST_NOTE = 500
_MAX_BYTES = 64 * 2**10
_LEAST_PREDICTED_S = 1e-3


@dataclass(frozen=True)
class StageTime:
    """One stage; seconds are None if unknown; `note`: the result, as the submission reports it. `began_s`: when the
    stage began, in seconds after the start of the submission."""

    stage: str
    predicted_s: float | None
    actual_s: float | None
    note: str = ""
    began_s: float | None = None

    @property
    def ratio(self) -> float | None:
        """Actual over predicted seconds; None if one is unknown or the prediction is below 1 ms."""
        if self.actual_s is None or self.predicted_s is None or self.predicted_s < _LEAST_PREDICTED_S:
            return None
        return self.actual_s / self.predicted_s


def read_stage_times(results_dir: Path, meta_test_s: float | None) -> tuple[tuple[StageTime, ...], list[str]]:
    """Return the stages, none if the file is missing or unusable, and notes that say what was ignored.

    `meta_test_s`: the time that ingestion measured; it replaces the actual time of that stage, which the submission
    cannot know. None or 0: not measured, nothing ran.
    """

    def parse(data: bytes) -> list[StageRow]:
        from scoring.stage_times_file import parse_stages  # noqa: PLC0415  (pydantic is slow to import)

        return parse_stages(data)

    rows, notes = read_optional(results_dir / STAGES_FILE, _MAX_BYTES, parse)
    measured = {META_TEST: meta_test_s or None}
    return tuple(
        StageTime(
            one_line(row.stage),
            row.predicted_s,
            measured.get(row.stage, row.actual_s),
            one_line(row.note, LONGEST_NOTE),
            row.began_s,
        )
        for row in rows or ()
    ), notes
