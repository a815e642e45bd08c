"""What a run has measured and computed: images embedded in views, metrics, inner products of held-out classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import TimeBudget, stopwatch
from autometa.data.images import ImagePool, Rows
from autometa.data.turned import turn_images
from autometa.evaluation.folds import Fold, fold_of_classes
from autometa.heads import Metric, find_metric
from autometa.heads.class_statistics import ClassStatistics
from autometa.heads.modes import Key, collect_keys, join_features
from autometa.model.artifact import MetricKey
from autometa.model.inputs import list_inputs
from autometa.planning.forecast import Forecast

ORIENTATIONS = ((0, False), (2, False), (1, False), (3, False), (0, True), (2, True), (1, True), (3, True))
"""Quarter turns, and whether the image is mirrored before: the classes of turned images are further classes to fit
metrics to. Half turns come first; they were worth the most on the development sets."""
ORIENTATION_STEPS = (1, 2, 4, 8)
"""How many of these a view may be fitted to."""
TRAINING_FOLD = 0
"""The fold whose classes no network is trained on."""
TURNED_IMAGES = 1024
"""Images that are turned, and embedded, at a time."""
MOST_IN_HALF = 1e4
"""Entries of projections are no larger: half precision ends at 65504."""


def orient(images: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Images [n, 3, h, w], mirrored and turned as the place in `ORIENTATIONS` says."""
    turns, mirrored = ORIENTATIONS[orientation]
    seen = images[..., ::-1] if mirrored else images
    turned: NDArray[np.uint8] = np.ascontiguousarray(turn_images(seen, turns))
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
    move_s: float = field(default=0.0, init=False)
    """Seconds that an input of a view took last, for one fold."""
    _turned: dict[View, list[torch.Tensor]] = field(default_factory=dict, init=False)
    _statistics: dict[View, ClassStatistics] = field(default_factory=dict, init=False)
    """Of the inputs of one view: they are large."""
    _metrics: dict[MetricKey, Metric] = field(default_factory=dict, init=False)
    _products: dict[tuple[int, View, Key], torch.Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._fold_of_class = fold_of_classes(self.folds, self.pool.classes)

    @property
    def product_bytes(self) -> int:
        """Memory of the products of a view."""
        return 4 * len(collect_keys(self.modes)) * sum(len(fold.rows) ** 2 for fold in self.folds)

    @property
    def fits_metrics(self) -> bool:
        """Whether a metric of the modes is fitted to classes."""
        return any(find_metric(name).learned for name, _ in collect_keys(self.modes))

    def take_in(self, view: View, orientations: int, budget: TimeBudget) -> None:
        """Embed all images in a view, in so many orientations. BudgetExhausted where the time is too short; nothing
        has changed then."""
        keys = list(range(len(self.pool.images)))
        inputs = self._keys_of_inputs(view)
        turned = {one: list(self._turned.get(one, [])) for one in inputs}
        known = len(next(iter(turned.values())))
        self.forecast.store.embed(view, self.pool.images, keys, budget)
        for orientation in range(1 + known, orientations):
            parts: dict[View, list[torch.Tensor]] = {one: [] for one in inputs}
            for start in range(0, len(keys), TURNED_IMAGES):  # turned images of all would be another pool
                images = orient(self.pool.images[start : start + TURNED_IMAGES], orientation)
                passing, own_keys = self._passing_store(), keys[: len(images)]
                for one in inputs:
                    parts[one].append(passing.embed(one, images, own_keys, budget).half())
            for one in inputs:
                turned[one].append(torch.cat(parts[one]))
        self._turned |= turned
        self._forget(view)
        self.orientations[view] = orientations

    def remember(self, view: View) -> Callable[[], None]:
        """A call that puts a view back into the state that it is in now."""
        inputs = self._keys_of_inputs(view)
        orientations = self.orientations.get(view)
        turned = {one: self._turned[one] for one in inputs if one in self._turned}
        metrics = {key: metric for key, metric in self._metrics.items() if key[0] in inputs}
        products = {key: kept for key, kept in self._products.items() if key[1] == view}

        def restore() -> None:
            self._forget(view)
            self.orientations.pop(view, None)
            if orientations is not None:
                self.orientations[view] = orientations
            self._turned = {one: kept for one, kept in self._turned.items() if one not in inputs} | turned
            self._metrics |= metrics
            self._products |= products

        return restore

    def leave_out(self, view: View) -> None:
        """Forget a view, but its features."""
        self._forget(view)
        del self.orientations[view]

    def metrics(self, views: Sequence[View], modes: Sequence[str]) -> dict[MetricKey, Metric]:
        """All that a portfolio of these views and modes needs, fitted to all classes. ValueError where these are too
        few."""
        wanted = [(view, key) for view in views for key in sorted(collect_keys(modes))]
        found: dict[MetricKey, Metric] = {}
        for view, key in wanted:
            for one in list_inputs([view], key):
                if one not in self._metrics:
                    self._metrics[one] = _fit(self._statistics_of(view, one[0]), one[1])
                found[one] = self._metrics[one]
        return found

    def products(self, fold: int, view: View, key: Key) -> torch.Tensor:
        """Inner products float32 [m, m] of the images that a fold holds out, in a view, after the metrics that `key`
        names were fitted to the other folds; each image at unit length. ValueError where these cannot be fitted."""
        place = (fold, view, key)
        if place not in self._products:
            elapsed, inputs = stopwatch(), list_inputs([view], key)
            rows, moved = self.folds[fold].rows.tolist(), []
            for one, name in inputs:
                features = self.forecast.store.take(one, rows)
                moved.append(_move(self._statistics_of(view, one), features, name, fold))
            joined = join_features(moved)
            self._products[place] = joined @ joined.T
            self.move_s = elapsed() / len(inputs)
        return self._products[place]

    def folds_for(self, view: View) -> range:
        """The folds whose classes a view has not seen: of a trained copy one."""
        if view.variant:
            return range(TRAINING_FOLD, TRAINING_FOLD + 1)
        return range(len(self.folds))

    def count_unknown(self, modes: Iterable[str]) -> int:
        """Inputs of views that `complete` would compute, over all folds."""
        return sum(len(list_inputs([view], key)) for _, view, key in self._list_unknown(modes))

    def complete(self, modes: Iterable[str]) -> None:
        """Compute all products that some modes ask for, view by view: the statistics of one are at hand at a time."""
        for fold, view, key in self._list_unknown(modes):
            self.products(fold, view, key)

    def _list_unknown(self, modes: Iterable[str]) -> list[tuple[int, View, Key]]:
        keys = sorted(collect_keys(modes))
        places = [
            (fold, view, key) for view in self.orientations for key in keys for fold in self.folds_for(view)
        ]
        return [place for place in places if place not in self._products]

    def labels(self, fold: int) -> Rows:
        """The class of each image that a fold holds out, int64 [m]."""
        return self.pool.labels[self.folds[fold].rows]

    def _keys_of_inputs(self, view: View) -> dict[View, list[str]]:
        """The inputs of a view, and the names of the metrics on each."""
        names: dict[View, list[str]] = {}
        for key in sorted(collect_keys(self.modes)):
            for one, name in list_inputs([view], key):
                names.setdefault(one, []).append(name)
        return names

    def _statistics_of(self, view: View, one: View) -> ClassStatistics:
        """Statistics of the features of all images in an input of a view, turned ones too, by folds."""
        if one not in self._statistics:
            names = self._keys_of_inputs(view)
            if not self._statistics.keys() <= names.keys():
                self._statistics.clear()
            powers = {find_metric(name).power for name in names[one]}
            statistics = self._statistics[one] = ClassStatistics()
            features = self.forecast.store.take(one, list(range(len(self.pool.images))))
            fold_of_image = self._fold_of_class[self.pool.labels]
            for each in (features, *self._turned[one]):
                for group in np.unique(fold_of_image):
                    rows = torch.from_numpy(np.flatnonzero(fold_of_image == group))
                    labels = torch.from_numpy(self.pool.labels)[rows]
                    statistics.add(each[rows].float(), labels, int(group), powers)
        return self._statistics[one]

    def _forget(self, view: View) -> None:
        """What was fitted to fewer orientations of a view."""
        self._statistics.clear()
        inputs = self._keys_of_inputs(view)
        self._metrics = {key: metric for key, metric in self._metrics.items() if key[0] not in inputs}
        self._products = {key: kept for key, kept in self._products.items() if key[1] != view}

    def _passing_store(self) -> FeatureStore:
        """For features that are kept elsewhere."""
        forecast = self.forecast
        return FeatureStore(
            forecast.shelf, forecast.limits.memory, shared=forecast.store.shared, spread=forecast.store.spread
        )


def _fit(statistics: ClassStatistics, name: str) -> Metric:
    """A metric fitted to all classes, its projection in half precision, as it is saved; as features become of unit
    length, it may be scaled to fit in."""
    spec = find_metric(name)
    if not spec.learned:
        return Metric(spec)
    metric = statistics.fit(name)
    assert metric.projection is not None and spec.unit, f"{name} whitens, to unit length"
    scale = MOST_IN_HALF / metric.projection.abs().max().clamp(min=MOST_IN_HALF)
    return replace(metric, projection=(metric.projection * scale).half())


def _move(statistics: ClassStatistics, features: torch.Tensor, name: str, fold: int) -> torch.Tensor:
    """Features of held-out images after a metric that was fitted to the other folds."""
    spec = find_metric(name)
    return statistics.move(features, name, fold) if spec.learned else Metric(spec)(features)
