"""Predicted against actual seconds of every stage of a run, for whoever reads `stages.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, RootModel

from autometa.core import journals
from autometa.core.budget import process_age_s, stopwatch
from autometa.core.files import write_model

LONGEST_NOTE, MOST_STAGES = 400, 100
"""Of the format."""
STAGES_FILE, JOURNAL = "stages.json", "journal.jsonl"


class StageTime(BaseModel):
    """Seconds of a stage, predicted and actual; None where there is no prediction, or where it has not ended. `note`
    is what came of it. `began_s`: when it began for the first time, in seconds after the start of the program."""

    stage: str
    predicted_s: float | None = None
    actual_s: float | None = None
    note: str = ""
    began_s: float | None = None


class StageTimes(RootModel[list[StageTime]]):
    """What `stages.json` holds: stages in the order in which they began."""


def _within(times: list[StageTime]) -> list[StageTime]:
    """As many stages as the file may hold, the last ones together as one."""
    if len(times) <= MOST_STAGES:
        return times
    kept, others = times[: MOST_STAGES - 1], times[MOST_STAGES - 1 :]
    together = StageTime(
        stage="further stages",
        predicted_s=sum(each.predicted_s or 0.0 for each in others),
        actual_s=sum(each.actual_s or 0.0 for each in others),
        note=f"{len(others)} of them",
        began_s=others[0].began_s,
    )
    return [*kept, together]


class StageLog:
    """The stages of a run in `folder` (None: nothing is written). A stage inside another
    one counts for itself only: its time and its prediction are subtracted from the outer stage. A stage that comes
    again adds up. A file that cannot be written ends no run: `report` gets one line."""

    def __init__(
        self,
        folder: Path | None,
        clock: Callable[[], float] | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._files = journals.Dispensable(report)
        self._stopwatch = partial(stopwatch, clock) if clock else stopwatch
        self._age_s = self._stopwatch() if clock else process_age_s
        self._times: dict[str, StageTime] = {}
        self._open: list[str] = []
        self._inside_s = [0.0]

    @property
    def times(self) -> list[StageTime]:
        """All stages so far."""
        return list(self._times.values())

    def predict(self, stage: str, predicted_s: float) -> None:
        """A stage is predicted to take so long; replaces what was predicted before."""
        self._time(stage).predicted_s = round(predicted_s, 3)

    def note(self, stage: str, text: str) -> None:
        """Say what came of a stage, after what was said before."""
        own = self._time(stage)
        own.note = f"{own.note}; {text}".removeprefix("; ")[:LONGEST_NOTE]

    @contextmanager
    def timed(self, stage: str, predicted_s: float | None = None) -> Iterator[None]:
        """Around a stage, however it ends; its figures are written then."""
        if predicted_s is not None:
            self._add_prediction(stage, max(predicted_s, 0.0))
        time_of_stage = self._time(stage)
        if time_of_stage.began_s is None:
            time_of_stage.began_s = round(self._age_s(), 3)
        self._open.append(stage)
        self._inside_s.append(0.0)
        elapsed = self._stopwatch()
        try:
            yield
        finally:
            whole_s, inside_s = elapsed(), self._inside_s.pop()
            self._open.pop()
            self._inside_s[-1] += whole_s
            time_of_stage.actual_s = round((time_of_stage.actual_s or 0.0) + whole_s - inside_s, 3)
            self.write_line(stage)
            self.write()

    def write_line(self, stage: str) -> None:
        """A line of the journal about a stage."""
        if self._folder is not None:
            self.append(self._time(stage).model_dump())

    def append(self, record: dict[str, Any], *, durable: bool = False) -> None:
        """A line of the journal; with `durable`, a power cut does not lose it."""
        if self._folder is not None:
            with self._files.writing(self._folder / JOURNAL):
                journals.append(self._folder / JOURNAL, record, durable=durable)

    def write(self) -> None:
        """Write `stages.json`, which appears whole or not at all."""
        if self._folder is not None:
            with self._files.writing(self._folder / STAGES_FILE):
                write_model(self._folder / STAGES_FILE, StageTimes(_within(self.times)), durable=False)

    def _time(self, stage: str) -> StageTime:
        return self._times.setdefault(stage, StageTime(stage=stage))

    def _add_prediction(self, stage: str, predicted_s: float) -> None:
        """To what the stage was predicted to take before; and off the stage around it."""
        own = self._time(stage)
        own.predicted_s = round((own.predicted_s or 0.0) + predicted_s, 3)
        if self._open and (around := self._time(self._open[-1])).predicted_s is not None:
            around.predicted_s = max(round(around.predicted_s - predicted_s, 3), 0.0)
