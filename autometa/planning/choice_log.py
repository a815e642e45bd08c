"""What a run has chosen and why, for whoever reads `choices.json`: members and weights, what was tried, and the
accuracy that each learner on disk promised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from autometa.core import journals
from autometa.core.files import write_model

CHOICES_FILE = "choices.json"
LONGEST_TEXT = 600
MOST_ROWS = 200
"""Of a list: further ones are not written, so that the file stays small."""

Outcome = Literal["kept", "undone", "failed"]


class Member(BaseModel):
    """A part of the learner: a `view` of a backbone, a `trained` copy of one, or a `mode` that answers; weights of
    views sum to 1, and those of modes do. `accuracy`: normalised, of a view alone on held-out classes."""

    name: str
    kind: Literal["view", "trained", "mode"]
    weight: float
    accuracy: float | None = None


class Trial(BaseModel):
    """Something that was tried: seconds predicted and actual, the gain in normalised accuracy that was expected, and
    the one measured with its standard error (None: not measured)."""

    name: str
    kind: str
    predicted_s: float
    actual_s: float
    expected_gain: float
    gain: float | None = None
    error: float | None = None
    outcome: Outcome = "kept"
    note: str = ""


class Served(BaseModel):
    """From so many seconds after the start on, a learner was on disk; the normalised accuracy that held-out classes
    promised then, and the ends of its 95 % interval (None: not measured)."""

    seconds: float
    stage: str
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None


class Choices(BaseModel):
    """What `choices.json` holds. `what` and `why` are a sentence each; `meta_test_bytes`: memory that meta-test is
    expected to take, None where that was not predicted."""

    format: Literal["autometa-choices-1"] = "autometa-choices-1"
    what: str = ""
    why: str = ""
    members: list[Member] = []
    trials: list[Trial] = []
    served: list[Served] = []
    meta_test_bytes: int | None = None


class ChoiceLog:
    """The choices of a run; the file in `folder` (None: nothing is written) is replaced whenever there are more, and
    appears whole or not at all. One that cannot be written ends no run: `report` gets one line."""

    def __init__(self, folder: Path | None, report: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._files = journals.Dispensable(report)
        self.choices = Choices()

    def explain(self, what: str, why: str) -> None:
        """Say in a sentence each what serves now, and why."""
        self.choices.what, self.choices.why = what[:LONGEST_TEXT], why[:LONGEST_TEXT]
        self._write()

    def resume(self, what: str, why: str) -> None:
        """The learner of an earlier run serves: what its file says of members stays, and the rest begins anew."""
        file = self._folder / CHOICES_FILE if self._folder is not None else None
        if file is not None and file.exists():
            try:
                earlier = Choices.model_validate_json(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, ValidationError):
                earlier = Choices()  # of another version, or damaged: members are not known then
            self.choices.members, self.choices.meta_test_bytes = earlier.members, earlier.meta_test_bytes
        self.explain(what, why)

    def add_trial(self, trial: Trial) -> None:
        """Something was tried."""
        if len(self.choices.trials) < MOST_ROWS:
            self.choices.trials.append(trial.model_copy(update={"note": trial.note[:LONGEST_TEXT]}))
        self._write()

    def add_served(
        self, served: Served, members: Sequence[Member], meta_test_bytes: int | None = None
    ) -> None:
        """A learner of these members is on disk; the latest one replaces the last row of a full list."""
        self.choices.members = list(members)[:MOST_ROWS]
        self.choices.meta_test_bytes = meta_test_bytes
        self.choices.served = [*self.choices.served[: MOST_ROWS - 1], served]
        self._write()

    def keep(self, names: Sequence[str]) -> None:
        """Of the members of the learner on disk, only those of these names are left (none named: all are)."""
        self.choices.members = [one for one in self.choices.members if not names or one.name in names]
        self._write()

    def _write(self) -> None:
        if self._folder is not None:
            with self._files.writing(self._folder / CHOICES_FILE):
                write_model(self._folder / CHOICES_FILE, self.choices, durable=False)
