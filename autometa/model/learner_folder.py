"""The folder where a run keeps the learner that it would serve with now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from autometa.core.budget import process_age_s, stopwatch


class Savable(Protocol):
    """A learner that can be saved; `validation` says at which `stage` of a run it was made."""

    @property
    def validation(self) -> dict[str, Any]: ...

    def save(self, folder: Path) -> None: ...


class LearnerFolder:
    """Saves learners in `folder` (None: nothing is saved) and reports each."""

    def __init__(self, folder: Path | None, report: Callable[[str], None]) -> None:
        self.folder, self._report = folder, report
        self._since_saved = stopwatch()

    def save(self, learner: Savable) -> None:
        """Replace what is in the folder by this learner; a kill leaves the old one or the new."""
        if self.folder is not None:
            learner.save(self.folder)
            self._since_saved = stopwatch()
            stage = learner.validation["stage"]
            self._report(f"learner on disk ({stage}, {process_age_s():.1f} s after the start)")

    def is_due(self, every_s: float) -> bool:
        """Whether there is a folder, and the last learner was saved more than `every_s` ago."""
        return self.folder is not None and self._since_saved() > every_s
