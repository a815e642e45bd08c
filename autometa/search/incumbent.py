"""The learner that a run would serve with now, on disk as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autometa.core.errors import ArtifactError
from autometa.evaluation.estimate import Estimate
from autometa.model.fitted_learner import FittedLearner
from autometa.model.learner_folder import LearnerFolder, load_earlier, replaces
from autometa.model.portfolio import Portfolio
from autometa.planning.saving import SavingCosts

Stage = Literal["bootstrap", "default", "search", "final"]
"""How far a run had come when a learner was made: before the images, with the first view, while more were bought, and
after all choices."""
Servable = FittedLearner | Portfolio


@dataclass
class Incumbent:
    """Saves learners in `folder` (None: only `latest` is kept); `report` gets a line for each."""

    folder: Path | None
    report: Callable[[str], None]
    costs: SavingCosts = field(default_factory=SavingCosts)
    """What saving is found to take."""
    latest: Servable | None = field(default=None, init=False)
    _earlier: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._saved = LearnerFolder(self.folder, self.report, self.costs)

    def is_due(self, every_s: float) -> bool:
        """Whether a learner that was not offered yet is worth saving: the last one was saved so long ago."""
        return self._saved.is_due(every_s)

    def resume(self, is_fit: Callable[[Servable], bool] = lambda _: True) -> Servable | None:
        """What an earlier run has saved becomes the latest learner; None where there is none, where it is but a
        bootstrap, which any run makes anew, or, after a report, where it cannot be used or `is_fit` says no."""
        learner = load_earlier(self.folder, self.report)
        if not isinstance(learner, Servable):
            return None
        if not is_fit(learner):
            self.report(
                "the learner of an earlier run was not measured to keep the limits of this one: not used"
            )
            return None
        self.latest, self._earlier = learner, True
        accuracy = learner.validation.get("normalised_accuracy")
        described = "" if accuracy is None else f" ({100 * accuracy:.1f} %)"
        self.report(f"resumed: the learner of an earlier run serves at once{described}")
        return learner

    def offer(self, learner: Servable, estimate: Estimate | None, stage: Stage) -> bool:
        """Make a learner the latest one and save it; whether that was done: not where the disk is full. Later
        learners of a run are better than those before, as nothing in a portfolio is picked by its score. One of an
        earlier run stays until this run has come as far, and is not expected to be worse."""
        learner.validation.update({"stage": stage} | (estimate.figures() if estimate else {}))
        if (
            self._earlier
            and self.latest is not None
            and not replaces(learner.validation, self.latest.validation)
        ):
            self.report(f"the learner of the earlier run stays ({self.latest.validation.get('stage')})")
            return False
        if not self._saved.save(learner):
            self.latest = self.latest or learner  # what is on disk serves, and is told of
            return False
        self.latest, self._earlier = learner, False
        return True

    def replace(self, learner: Servable) -> None:
        """The latest learner in another form, which is saved in its place. ArtifactError where it cannot be."""
        if not self._saved.save(learner):
            raise ArtifactError("the learner that was saved is not the one that was to take its place")
        self.latest = learner
