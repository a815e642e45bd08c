"""The folder where a run keeps the learner that it would serve with now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from autometa.core.budget import process_age_s, stopwatch
from autometa.core.errors import describe
from autometa.core.files import count_tensor_bytes
from autometa.planning.saving import SavingCosts

GUESS_BYTES = 10**8
"""Size of a learner that was not saved yet."""


class Savable(Protocol):
    """A learner that can be saved; `validation` says at which `stage` of a run it was made."""

    @property
    def validation(self) -> dict[str, Any]: ...

    def save(self, folder: Path) -> None: ...


class LearnerFolder:
    """Saves learners in `folder` (None: nothing is saved), reports each, and tells `costs` how long it took."""

    def __init__(
        self, folder: Path | None, report: Callable[[str], None], costs: SavingCosts | None = None
    ) -> None:
        self.folder, self._report = folder, report
        self.costs = costs or SavingCosts()
        self._since_saved = stopwatch()

    def save(self, learner: Savable) -> bool:
        """Replace what is in the folder by this learner; a kill leaves the old one or the new. Whether the learner is
        there: where it cannot be written, as on a full disk, the one before stays, and that is reported."""
        if self.folder is not None:
            before, elapsed = count_tensor_bytes(self.folder), stopwatch()
            try:
                learner.save(self.folder)
            except OSError as error:
                self._report(f"learner not saved, the one before stays: {describe(error)}")
                return False
            after, seconds = count_tensor_bytes(self.folder), elapsed()
            self.costs.add(seconds, sum(size for name, size in after.items() if name not in before))
            self._since_saved = stopwatch()
            stage = learner.validation["stage"]
            self._report(f"learner on disk ({stage}, {process_age_s():.1f} s after the start)")
        return True

    def save_again_s(self) -> float:
        """Seconds to reserve for saving a learner as large as the one that is in the folder, all of it new."""
        return self.costs.seconds(sum(count_tensor_bytes(self.folder).values()) or GUESS_BYTES)

    def is_due(self, every_s: float) -> bool:
        """Whether there is a folder, and the last learner was saved more than `every_s` ago."""
        return self.folder is not None and self._since_saved() > every_s
