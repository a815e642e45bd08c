"""The folder where a run keeps the learner that it would serve with now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from autometa.core.budget import process_age_s, stopwatch
from autometa.core.errors import FAILURES, describe
from autometa.core.files import DESCRIPTION, count_tensor_bytes
from autometa.model.load import AnyLearner, load_learner
from autometa.planning.saving import SavingCosts

GUESS_BYTES = 10**8
"""Size of a learner that was not saved yet."""


class Savable(Protocol):
    """A learner that can be saved; `validation` says at which `stage` of a run it was made."""

    @property
    def validation(self) -> dict[str, Any]: ...

    def save(self, folder: Path) -> None: ...


STAGES = ("untrained", "bootstrap", "default", "training", "search", "final")
"""How far a run had come when a learner was made."""
L = TypeVar("L", bound=Savable)
M = TypeVar("M", bound=Savable)


def replaces(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a learner may take the place of one of an earlier run, by what is known of both: once this run has
    come as far, where it is not expected to be worse."""
    come, had = (STAGES.index(one.get("stage", STAGES[0])) for one in (new, old))
    expected, known = (one.get("normalised_accuracy") for one in (new, old))
    if come != had or expected is None or known is None:
        return come >= had
    return bool(expected >= known)


def load_earlier(folder: Path | None, report: Callable[[str], None]) -> AnyLearner | None:
    """The learner that an earlier run has left in a folder; None where there is none, where it is one that any run
    makes anew, untrained or a bootstrap, or, after a report, where it cannot be used."""
    if folder is None or not (folder / DESCRIPTION).exists():
        return None
    try:
        learner = load_learner(folder, report)
    except FAILURES as error:
        report(f"the learner of an earlier run cannot be used: {describe(error)}")
        return None
    return None if learner.validation.get("stage") in STAGES[:2] else learner


class LearnerFolder:
    """Saves learners in `folder` (None: nothing is saved), reports each, and tells `costs` how long it took. One of
    an earlier run that goes on stays until it may be replaced."""

    def __init__(
        self, folder: Path | None, report: Callable[[str], None], costs: SavingCosts | None = None
    ) -> None:
        self.folder, self._report = folder, report
        self.costs = costs or SavingCosts()
        self._since_saved = stopwatch()
        self._kept: Savable | None = None

    def resume(self, kind: type[L], other: type[M] | None = None) -> L | M | None:
        """The trained learner that an earlier run has left, which stays for now; None where there is none of this
        kind, or the `other`, or, after a report, where it cannot be used."""
        learner = load_earlier(self.folder, self._report)
        if not isinstance(learner, (kind, other or kind)):
            return None
        self._kept = learner
        self._report("resumed: the learner of an earlier run serves at once")
        return learner

    def best(self, learner: L) -> L:
        """This learner, or the one of an earlier run, of the same kind, as long as that one stays."""
        return self._kept if isinstance(self._kept, type(learner)) else learner

    def save(self, learner: Savable) -> bool:
        """Replace what is in the folder by this learner; a kill leaves the old one or the new. Whether the learner is
        there: not where one of an earlier run stays; and where it cannot be written, as on a full disk, the one
        before stays, and that is reported."""
        if self._kept is not None and not replaces(learner.validation, self._kept.validation):
            return False
        self._kept = None
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
