"""The portfolio that a run builds: its views so far, their weights, and what they answer on held-out classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.core.budget import stopwatch
from autometa.evaluation.accuracy import Scores, paired_gain
from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.search.evidence import Evidence, FoldAnswer, Mixture
from autometa.search.purchases import SOFTNESS
from autometa.search.weighing import shrink_gain, soft_weights, without_fold
from autometa.search.workbench import TRAINING_FOLD, Workbench

ALONE = "root"
"""The mode in which views are compared with each other."""
QUICK_MODES = ("root", "plain")
"""The modes in which portfolios are compared before and after a purchase, where they have these."""
ASK_S = 1.0
"""Seconds to ask the folds about a further view, until they were asked about one."""


@dataclass
class PortfolioDraft:
    """The views on the workbench as one portfolio, in all its modes."""

    bench: Workbench
    evidence: Evidence
    refinement: Refinement = DEFAULT_REFINEMENT
    answers: list[FoldAnswer] = field(default_factory=list, init=False)
    """What the portfolio answers on each fold, as it is now, in a few modes."""
    alone: dict[View, NDArray[np.float64]] = field(default_factory=dict, init=False)
    """What each view answers alone: its mean accuracy in each fold."""
    _gains: dict[View, float] = field(default_factory=dict, init=False)
    """What trained copies answer better than their networks untrained, as `TRAINING_FOLD` tells."""
    asked_s: float = field(default=ASK_S, init=False)
    """Seconds that asking the folds about a further view took last."""

    @property
    def views(self) -> list[View]:
        """Views of the portfolio, the largest weight first."""
        weights = self.weights()
        return sorted(weights, key=lambda view: -weights[view])

    @property
    def modes(self) -> dict[str, float]:
        """All modes, with equal weights."""
        return dict.fromkeys(self.bench.modes, 1.0)

    @property
    def quick_modes(self) -> dict[str, float]:
        """The modes in which portfolios are compared, with their weights."""
        return {mode: 1.0 for mode in self.bench.modes if mode in (*QUICK_MODES, "unfitted")}

    def weights(self, without: int | None = None, some: Sequence[View] | None = None) -> dict[View, float]:
        """Weights of all views, or of `some`, by what they answer alone, in all folds or in all but one."""
        views = list(self.bench.orientations if some is None else some)
        if not views or not all(view in self.alone for view in views):
            return dict.fromkeys(views, 1 / max(len(views), 1))
        accuracies = np.stack([self._alone(view, without) for view in views])
        if without is not None:
            accuracies = without_fold(accuracies, without)
        return dict(zip(views, soft_weights(accuracies, SOFTNESS).tolist(), strict=True))

    def mixture(self) -> Mixture:
        """The portfolio with equal weights of its modes."""
        return Mixture(self.weights(), self.modes, self.refinement)

    def ask(self, view: View) -> None:
        """Ask the folds what a new or changed view answers alone, and then what the portfolio answers."""
        if not self.bench.folds:
            return
        elapsed, alone = stopwatch(), Mixture({view: 1.0}, {ALONE: 1.0})
        if view.variant:
            plain = self._untrained(view)
            own = self.evidence.accuracies(alone, TRAINING_FOLD)
            others = self.evidence.accuracies(replace(alone, views={plain: 1.0}), TRAINING_FOLD)
            self._gains[view] = shrink_gain(*paired_gain(own, others))
            self.alone[view] = self.alone[plain] + self._gains[view]
        else:
            folds = range(len(self.bench.folds))
            self.alone[view] = np.array(self.evidence.mean(alone, folds))
        quick = replace(self.mixture(), modes=self.quick_modes)
        self.answers = self.answer_all(quick)
        self.asked_s = elapsed()

    def remember(self, view: View) -> Callable[[], None]:
        """A call that undoes what happens to a view from now on."""
        restore_bench, alone, answers = self.bench.remember(view), dict(self.alone), self.answers

        def restore() -> None:
            restore_bench()
            self.alone, self.answers = alone, answers

        return restore

    def leave_out(self, view: View, answers: list[FoldAnswer]) -> None:
        """Take a view out; `answers`: what the portfolio answers without it, in a few modes."""
        self.bench.leave_out(view)
        del self.alone[view]
        self.answers = answers

    def answer(self, mixture: Mixture, fold: int) -> FoldAnswer:
        """What a portfolio answers on a fold; without trained copies, which have seen its classes, but on one."""
        unseen = [view for view in mixture.views if fold in self.bench.folds_for(view)]
        return self.evidence.answer(mixture.narrowed(unseen), fold)

    def answer_all(self, mixture: Mixture) -> list[FoldAnswer]:
        """What a portfolio answers on each fold."""
        self.bench.complete(mixture.modes)
        return [self.answer(mixture, fold) for fold in range(len(self.bench.folds))]

    def accuracies(self) -> list[Scores]:
        """Accuracy of the portfolio in each episode, fold by fold."""
        return [self.evidence.measure(answer, self.quick_modes) for answer in self.answers]

    def accuracies_with(self, refinement: Refinement) -> list[float]:
        """Mean accuracy of the portfolio in each fold with another refinement."""
        mixture = replace(self.mixture(), refinement=refinement)
        answers = self.answer_all(mixture)
        return [float(self.evidence.measure(answer, mixture.modes).mean()) for answer in answers]

    def _alone(self, view: View, without: int | None) -> NDArray[np.float64]:
        """What a view answers alone; without the fold that tells what training gained, nothing is known of that."""
        return self.alone[view] - (self._gains.get(view, 0.0) if without == TRAINING_FOLD else 0.0)

    def _untrained(self, view: View) -> View:
        """The view of the same network without training that is known, of the same size if possible."""
        alike = [one for one in self.alone if one.backbone == view.backbone and not one.variant]
        return max(alike, key=lambda one: one.px == view.px)
