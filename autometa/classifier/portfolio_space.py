"""The space of a portfolio: the features of its views after the metrics of its modes."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch

from autometa.backbones.engine_choices import WORTH_BUILDING
from autometa.backbones.feature_store import FeatureStore
from autometa.classifier.spaces import Encoded, Images, Support
from autometa.core.budget import MemoryBudget
from autometa.core.machine import one_thread
from autometa.data.test_spec import FORMAT_PX
from autometa.evaluation.mixing import average, log_probabilities
from autometa.heads import FeatureBatch
from autometa.heads.class_means import SupportMeans, zero_unless_finite
from autometa.heads.modes import UNFITTED, Key, apply_modes, collect_keys
from autometa.heads.ridge import ridge_weights
from autometa.model.few_queries import FEW_IMAGES, side_by_side
from autometa.model.inputs import apply_metrics
from autometa.model.portfolio import Portfolio

RIDGE_KEYS: tuple[Key, ...] = (("white_prior", False), ("root_white_prior", False))
"""What ridge regression looks at: the first of these that the modes have, else their first features."""


@dataclass(frozen=True)
class Averaging:
    """How class means and ridge regression are averaged: the `strength` of the latter, and temperatures of both."""

    strength: float
    of_ridge: float
    of_means: float


FITTED_AVERAGING, UNFITTED_AVERAGING = Averaging(1.0, 0.075, 0.75), Averaging(0.1, 0.1, 2.0)
"""With and without metrics. On nine development sets, models of `fit` answered 0.6 points more of new images of their
classes than by class means alone (from 1 to 20 examples; −1 to +6), and 0.7 more of those of other classes (from 1
to 10 examples; 0 to +2), equally well calibrated. A weaker regression gained more on most sets, and lost up to three
points where metrics fit the examples too closely."""
MEANS_ALONE = Averaging(1.0, math.inf, 0.5)
"""Class means as they are: so portfolios with metrics answered before."""


@dataclass(frozen=True)
class KeptSupport:
    """What answers need of a support set: its class means, and weights [d, ways] of ridge regression."""

    means: SupportMeans
    ridge: torch.Tensor


def name_of(key: Key) -> str:
    """What the rows of a key are called."""
    return f"{key[0]}{' by layer' if key[1] else ''}"


@dataclass
class PortfolioSpace:
    """The features of a portfolio's views after the metrics of its modes, half precision: so they are kept, so they
    are saved. `told`: another averaging than the usual one."""

    portfolio: Portfolio
    told: Averaging | None = None
    _expects_many: bool = field(default=False, init=False)
    _kept: WeakKeyDictionary[Support, KeptSupport] = field(default_factory=WeakKeyDictionary, init=False)

    @property
    def keys(self) -> list[Key]:
        """The metrics of the modes."""
        return sorted(collect_keys(mode.name for mode in self.portfolio.modes))

    def encode(self, images: Images, ahead: int = 0) -> dict[str, torch.Tensor]:
        """uint8 [n, 3, px, px] → float16 [n, d] of unit length for each metric of the modes."""
        portfolio, places = self.portfolio, list(range(len(images)))
        if len(images) + ahead >= WORTH_BUILDING and not self._expects_many:
            self._expects_many = True  # engines were chosen for a few examples
            for view in portfolio.views:
                portfolio.shelf(view.backbone, view.variant).reconsider(view.px)
        if len(images) + ahead <= FEW_IMAGES:
            moved = portfolio.mover.look(portfolio.store, portfolio.views, self.keys, images)
            joined = side_by_side(moved, self.names, portfolio.views, self.weights)
            return {name_of(key): features.half() for key, features in joined.items()}
        store = FeatureStore(portfolio.shelf, MemoryBudget.of_machine(), ahead=ahead)
        for view in portfolio.views:
            store.embed(view, images, places)
        return {name_of(key): self._join(store, key, places).half() for key in self.keys}

    @property
    def weights(self) -> list[float]:
        """Of the views; their sum is 1."""
        weights = self.portfolio.weights or (1.0,) * len(self.portfolio.views)
        return [weight / sum(weights) for weight in weights]

    def _join(self, store: FeatureStore, key: Key, places: list[int]) -> torch.Tensor:
        """The views side by side, so that inner products are their weighted mean."""
        metrics, views = self.portfolio.metrics, zip(self.portfolio.views, self.weights, strict=True)
        moved = [apply_metrics(metrics, store, view, key, places) * weight**0.5 for view, weight in views]
        return torch.cat(moved, dim=1)

    def answer(self, support: Support, query: Encoded, *, transductive: bool) -> torch.Tensor:
        """Class means of each mode and ridge regression, or, where queries may help each other and look evenly
        spread over the classes, optimal transport."""
        portfolio = self.portfolio
        mixed = self._together(support, query) if transductive else self._alone(support, query)
        return portfolio.temperature(mixed, len(support.labels) / support.ways)

    def _together(self, support: Support, query: Encoded) -> torch.Tensor:
        """Log-probabilities float64 [q, ways] of queries that may help each other."""
        batches = {
            key: FeatureBatch(
                support.encoded[name_of(key)].float()[None],
                support.labels[None],
                query[name_of(key)].float()[None],
                torch.tensor([support.ways]),
            )
            for key in self.keys
        }
        return self._mix(apply_modes(self.names, batches, refinement=self.portfolio.refinement)[:, 0])

    def _alone(self, support: Support, query: Encoded) -> torch.Tensor:
        """Log-probabilities float64 [q, ways], each query for itself; what the support needs is computed once."""
        if support not in self._kept:
            self._kept[support] = self._keep(support)
        kept = self._kept[support]
        with one_thread() if len(query[name_of(self.keys[0])]) <= FEW_IMAGES else nullcontext():
            features = {key: query[name_of(key)].float() for key in self.keys}
            mixed = self._mix(kept.means.answer(features))
            ridge = (zero_unless_finite(features[self.ridge_key]) @ kept.ridge).double()
            of_ridge = log_probabilities(ridge, self.averaging.of_ridge)
            return average([of_ridge, log_probabilities(mixed, self.averaging.of_means)], [1, 1])

    def _keep(self, support: Support) -> KeptSupport:
        encoded = {key: support.encoded[name_of(key)].float() for key in self.keys}
        sharpness, strength = self.portfolio.refinement.sharpness, self.averaging.strength
        means = SupportMeans.of(self.names, encoded, support.labels, sharpness=sharpness)
        rows = zero_unless_finite(encoded[self.ridge_key])  # class means see to it themselves
        ridge = ridge_weights(rows, support.labels, support.ways, strength=strength)
        return KeptSupport(means, ridge)

    def _mix(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [modes, q, ways] → their weighted mean, float64 [q, ways]."""
        return average(list(scores.double()), [mode.weight for mode in self.portfolio.modes])

    @property
    def names(self) -> list[str]:
        """Of the modes."""
        return [mode.name for mode in self.portfolio.modes]

    @property
    def is_unfitted(self) -> bool:
        """Whether no metrics were fitted."""
        return self.names == list(UNFITTED)

    @property
    def ridge_key(self) -> Key:
        """The features that ridge regression looks at."""
        return next((key for key in RIDGE_KEYS if key in self.keys), self.keys[0])

    @property
    def averaging(self) -> Averaging:
        """Of ridge regression and of class means."""
        if self.told is not None:
            return self.told
        return UNFITTED_AVERAGING if self.is_unfitted else FITTED_AVERAGING

    def features(self, encoded: Encoded) -> torch.Tensor:
        """The features after the first metric, by name."""
        return encoded[name_of(self.keys[0])].float()

    def columns(self) -> dict[str, list[slice]]:
        """Which columns of the rows of each name come from each view."""
        portfolio, blank = self.portfolio, np.zeros((1, 3, FORMAT_PX, FORMAT_PX), np.uint8)
        store = FeatureStore(portfolio.shelf, MemoryBudget.of_machine())
        for view in portfolio.views:
            store.embed(view, blank, [0])
        found = {}
        for key in self.keys:
            widths = [apply_metrics(portfolio.metrics, store, v, key, [0]).shape[1] for v in portfolio.views]
            ends = np.cumsum([0, *widths]).tolist()
            found[name_of(key)] = list(map(slice, ends[:-1], ends[1:]))
        return found

    def members(self) -> list[tuple[str, float]]:
        """Views with their weights."""
        return [(str(v.plain), w) for v, w in zip(self.portfolio.views, self.weights, strict=True)]
