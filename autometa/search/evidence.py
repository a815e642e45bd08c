"""Evidence: what portfolios answer on classes that their metrics were not fitted to, fold by fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from autometa.backbones import View
from autometa.core.budget import stopwatch
from autometa.evaluation.accuracy import Scores
from autometa.evaluation.mixing import average
from autometa.evaluation.validation_episodes import gather_features
from autometa.heads.modes import Key, apply_modes, collect_keys
from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.heads.solve import factor_products
from autometa.search.workbench import Workbench


@dataclass(frozen=True)
class Mixture:
    """What a portfolio is made of: the weights of its `views` in the fused features and of its `modes` in the mean of
    answers, and the `refinement` of the inner products."""

    views: Mapping[View, float]
    modes: Mapping[str, float]
    refinement: Refinement = DEFAULT_REFINEMENT

    def narrowed(self, views: Sequence[View]) -> Mixture:
        """The same with some of the views only."""
        return replace(self, views={view: self.views[view] for view in views if view in self.views})


@dataclass(frozen=True)
class FoldAnswer:
    """Scores [modes, b, q, n] per batch of the episodes of a fold, and the names of the modes."""

    fold: int
    modes: tuple[str, ...]
    scores: tuple[torch.Tensor, ...]

    def mix(self, weights: Mapping[str, float]) -> list[torch.Tensor]:
        """Log-probabilities [b, q, n] per batch, the weighted mean of those of the modes."""
        return [average(list(batch), [weights[mode] for mode in self.modes]) for batch in self.scores]


@dataclass
class Evidence:
    """Asks portfolios about the episodes of the folds of a workbench; `balanced`: each class of a test task is
    declared to have as many queries."""

    workbench: Workbench
    balanced: bool
    _asked_s: dict[tuple[str, ...], float] = field(default_factory=dict, init=False)
    """Seconds that asking some modes of a portfolio about one fold took last."""

    def fold_s(self, modes: Iterable[str]) -> float:
        """Predicted seconds to ask some modes of a portfolio about one fold; from others, if these were not asked."""
        names = tuple(modes)
        if names in self._asked_s:
            return self._asked_s[names]
        return len(names) * max(
            (seconds / len(known) for known, seconds in self._asked_s.items()), default=0.0
        )

    def answer(self, mixture: Mixture, fold: int) -> FoldAnswer:
        """What the modes of a portfolio answer on a fold."""
        elapsed = stopwatch()
        compact = {key: self._features(mixture.views, key, fold) for key in collect_keys(mixture.modes)}
        names, parts = tuple(mixture.modes), []
        for batch in self.workbench.folds[fold].episodes.batches:
            gathered = {key: gather_features(features, batch) for key, features in compact.items()}
            parts.append(apply_modes(names, gathered, balanced=self.balanced, refinement=mixture.refinement))
        self._asked_s[names] = elapsed()
        return FoldAnswer(fold, names, tuple(parts))

    def accuracies(self, mixture: Mixture, fold: int) -> Scores:
        """Normalised accuracy of a portfolio in each episode of a fold."""
        return self.measure(self.answer(mixture, fold), mixture.modes)

    def measure(self, answer: FoldAnswer, weights: Mapping[str, float]) -> Scores:
        """Normalised accuracy in each episode, of an answer with these weights of its modes."""
        return self.workbench.folds[answer.fold].episodes.measure(answer.mix(weights)).accuracies

    def mean(self, mixture: Mixture, folds: Sequence[int]) -> list[float]:
        """Mean normalised accuracy of a portfolio in each of these folds."""
        return [float(np.mean(self.accuracies(mixture, fold))) for fold in folds]

    def _features(self, weights: Mapping[View, float], key: Key, fold: int) -> torch.Tensor:
        """Features [m, m] of the held-out images whose inner products are the weighted mean of those in the views."""
        total = sum(weights.values())
        products = torch.stack(
            [self.workbench.products(fold, view, key) * (weight / total) for view, weight in weights.items()]
        ).sum(0)
        return factor_products(products)
