"""What a run has measured and computed: images embedded in views, metrics, inner products of held-out classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import TimeBudget, stopwatch
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.folds import Fold, fold_of_classes
from autometa.heads import Metric, find_metric
from autometa.heads.class_statistics import ClassStatistics
from autometa.heads.modes import Key, collect_keys, join_features
from autometa.model.artifact import MetricKey
from autometa.model.portfolio import list_inputs
from autometa.planning.forecast import Forecast

ORIENTATIONS = ((0, False), (2, False), (1, False), (3, False), (0, True), (2, True), (1, True), (3, True))
"""Quarter turns, and whether the image is mirrored before: the classes of turned images are further classes to fit
metrics to. Half turns come first; they were worth the most on the development sets."""
ORIENTATION_STEPS = (1, 2, 4, 8)
"""How many of these a view may be fitted to."""


def orient(images: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Images [n, 3, h, w], mirrored and turned as the place in `ORIENTATIONS` says."""
    turns, mirrored = ORIENTATIONS[orientation]
    seen = images[..., ::-1] if mirrored else images
    turned: NDArray[np.uint8] = np.ascontiguousarray(np.rot90(seen, turns, (2, 3)))
    return turned


@dataclass
class Workbench:
    """`pool`: the images to learn from, all of which every view embeds. `folds`: of its classes. `modes`: those that
    portfolios will have."""

    pool: ImagePool
    folds: Sequence[Fold]
    modes: tuple[str, ...]
    forecast: Forecast
    orientations: dict[View, int] = field(default_factory=dict, init=False)
    """How many orientations the metrics of each view are fitted to; views that are here are embedded."""
    _statistics: dict[View, ClassStatistics] = field(default_factory=dict, init=False)
    _metrics: dict[MetricKey, Metric] = field(default_factory=dict, init=False)
    _products: dict[tuple[int, View, Key], torch.Tensor] = field(default_factory=dict, init=False)
    fit_s: float | None = field(default=None, init=False)
    """Seconds that fitting a metric took last."""

    def __post_init__(self) -> None:
        self._fold_of_class = fold_of_classes(self.folds, self.pool.classes)

    @property
    def inputs(self) -> int:
        """Number of metrics of a view."""
        return sum(len(list_inputs([View("any", 1)], key)) for key in collect_keys(self.modes))

    def take_in(self, view: View, orientations: int, budget: TimeBudget) -> None:
        """Embed all images in a view, in so many orientations, and sum up what metrics are fitted to. BudgetExhausted
        where the time is too short; nothing has changed then."""
        known = self.orientations.get(view, 0)
        layers = self._powers_of_layers(view)
        added: list[tuple[View, int, torch.Tensor]] = []
        for orientation in range(known, orientations):
            store = self.forecast.store if orientation == 0 else self._passing_store()
            images = self.pool.images if orientation == 0 else orient(self.pool.images, orientation)
            keys = list(range(len(images)))
            added += [(one, orientation, store.embed(one, images, keys, budget)) for one in layers]
        for one, orientation, features in added:
            statistics = self._statistics.setdefault(one, ClassStatistics())
            for group in np.unique(self._fold_of_class):
                rows = np.flatnonzero(self._fold_of_class[self.pool.labels] == group)
                labels = torch.from_numpy(self.pool.labels[rows])
                statistics.add(features[torch.from_numpy(rows)], labels, int(group), layers[one])
            self._forget(one)
        self.orientations[view] = orientations
        for place, products_view, key in [each for each in self._products if each[1] == view]:
            del self._products[place, products_view, key]

    def metric(self, key: MetricKey) -> Metric:
        """A metric fitted to all classes. ValueError where there are too few."""
        if key not in self._metrics:
            elapsed, spec = stopwatch(), find_metric(key[1])
            self._metrics[key] = self._statistics[key[0]].fit(key[1]) if spec.learned else Metric(spec)
            self.fit_s = elapsed()
        return self._metrics[key]

    def metrics(self, views: Sequence[View], modes: Sequence[str]) -> dict[MetricKey, Metric]:
        """All that a portfolio of these views and modes needs, fitted to all classes."""
        wanted = {one for key in collect_keys(modes) for one in list_inputs(views, key)}
        return {key: self.metric(key) for key in sorted(wanted)}

    def products(self, fold: int, view: View, key: Key) -> torch.Tensor:
        """Inner products float32 [m, m] of the images that a fold holds out, in a view, after the metrics that `key`
        names were fitted to the other folds; each image at unit length."""
        place = (fold, view, key)
        if place not in self._products:
            rows = self.folds[fold].rows
            moved = []
            for one in list_inputs([view], key):
                features = self.forecast.store.take(one[0], rows.tolist())
                moved.append(self._move(one, features, fold))
            joined = join_features(moved)
            self._products[place] = joined @ joined.T
        return self._products[place]

    def labels(self, fold: int) -> Rows:
        """The class of each image that a fold holds out, int64 [m]."""
        return self.pool.labels[self.folds[fold].rows]

    def _powers_of_layers(self, view: View) -> dict[View, set[str]]:
        """The inputs of a view, and the powers to which their features are raised before a metric is fitted."""
        powers: dict[View, set[str]] = {}
        for key in sorted(collect_keys(self.modes)):
            for one, name in list_inputs([view], key):
                powers.setdefault(one, set()).add(find_metric(name).power)
        return powers

    def _passing_store(self) -> FeatureStore:
        """For features that are summed up and then dropped."""
        return FeatureStore(self.forecast.shelf, self.forecast.limits.memory)

    def _forget(self, one: View) -> None:
        for key in [each for each in self._metrics if each[0] == one]:
            del self._metrics[key]

    def _move(self, key: MetricKey, features: torch.Tensor, fold: int) -> torch.Tensor:
        """Features of held-out images after a metric that was fitted to the other folds."""
        spec = find_metric(key[1])
        return (
            self._statistics[key[0]].move(features, key[1], fold) if spec.learned else Metric(spec)(features)
        )
