"""The bench: the images, features and paired episodes on which candidates are measured."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, rows_within
from autometa.data.splits import split_classes, split_datasets
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.heads import FeatureStatistics, Metric, MetricSpec, Params, find_metric

HELD_OUT_CLASSES = 0.5
FEW_IMAGES, FEW_EPISODES = 160, 60
FEW_WAYS, FEW_SHOTS, FEW_QUERIES = 10, 3, 4
LEAST_IMAGES = 150
LEAST_METRIC_IMAGES = 300
"""Images of the classes to fit on that metrics are learned from, at least; else as many as are held out."""
REMEMBERED = 6
"""Transformed features, of a view by a metric, that are kept for the next candidate."""


@dataclass(frozen=True)
class ValidationSet:
    """`size` validation images first, then images of the classes to fit metrics on; `labels` int64 [n] of both;
    `keys` are the rows of all of them in the pool; `episodes` are drawn over the former, `fresh` too, for
    the final figure. `balanced`: test queries are declared to be as many of each class."""

    images: NDArray[np.uint8]
    keys: list[int]
    size: int
    labels: torch.Tensor
    episodes: ValidationEpisodes
    fresh: ValidationEpisodes
    balanced: bool
    _statistics: OrderedDict[View, FeatureStatistics] = field(default_factory=OrderedDict, init=False)
    _prepared: OrderedDict[tuple[View, str], tuple[Metric, torch.Tensor]] = field(
        default_factory=OrderedDict, init=False
    )

    @classmethod
    def of(
        cls,
        pool: ImagePool,
        test: TestSpec,
        n_episodes: int,
        max_images: int,
        rng: np.random.Generator,
    ) -> ValidationSet:
        """Hold out classes (whole datasets where the test is of other datasets, and there are several) and draw
        `n_episodes` for selection and as many fresh ones, over about `max_images` images."""
        spec, split = test.episodes, split_datasets if test.is_cross_domain else split_classes
        fit, held = split(pool, HELD_OUT_CLASSES, rng)
        per_class = spec.shots[1] + spec.queries_per_class
        rows = rows_within(pool, held, per_class, max(max_images, LEAST_IMAGES), rng)
        most = max(max_images, LEAST_METRIC_IMAGES)
        others = rows_within(pool, fit, max(per_class, most // max(len(fit), 1)), most, rng)
        chosen = np.concatenate([rows, others])
        images = pool.images[chosen]
        sub = replace(pool, images=images[: len(rows)], labels=pool.labels[rows])
        episodes, fresh = (
            ValidationEpisodes(sample_episodes(sub, held, spec, n_episodes, rng)) for _ in range(2)
        )
        labels = torch.from_numpy(pool.labels[chosen])
        return cls(images, chosen.tolist(), len(rows), labels, episodes, fresh, spec.balanced)

    @classmethod
    def few(cls, pool: ImagePool, spec: EpisodeSpec, rng: np.random.Generator) -> ValidationSet:
        """Small episodes over few images, and none to fit metrics on: enough to rank views, in seconds."""
        small = replace(
            spec,
            ways=(spec.ways[0], max(min(spec.ways[1], FEW_WAYS), spec.ways[0])),
            shots=(spec.shots[0], max(min(spec.shots[1], FEW_SHOTS), spec.shots[0])),
            queries_per_class=min(spec.queries_per_class, FEW_QUERIES),
        )
        classes = np.arange(pool.classes)
        rows = rows_within(pool, classes, small.shots[1] + small.queries_per_class, FEW_IMAGES, rng)
        labels = pool.labels[rows]
        part = replace(pool, images=pool.images[rows], labels=labels)
        episodes = ValidationEpisodes(sample_episodes(part, np.unique(labels), small, FEW_EPISODES, rng))
        numbers = torch.from_numpy(labels)
        return cls(part.images, rows.tolist(), len(rows), numbers, episodes, episodes, spec.balanced)

    @property
    def fit_labels(self) -> torch.Tensor:
        """Labels of the images after the first `size`."""
        return self.labels[self.size :]

    def metric(self, view: View, features: torch.Tensor, name: str, *, every_class: bool = False) -> Metric:
        """The metric called `name`, fitted on the classes to fit on, or on `every_class` once there is nothing
        left to choose, given the features of all images of the bench in a view."""
        if every_class and find_metric(name).learned:
            return FeatureStatistics(features, self.labels).fit(find_metric(name))
        return self._prepare(view, features, name)[0]

    def answer(
        self,
        view: View,
        features: torch.Tensor,
        head: str,
        params: Params,
        episodes: ValidationEpisodes | None = None,
    ) -> Answer:
        """What a head answers on the episodes for selection or on others of the bench, given the features of all
        its images in a view."""
        metric, moved = self._prepare(view, features, params["transform"])
        return (episodes or self.episodes).answer(moved, head, params, metric, balanced=self.balanced)

    def _prepare(self, view: View, features: torch.Tensor, name: str) -> tuple[Metric, torch.Tensor]:
        if (view, name) not in self._prepared:
            metric = self._fit(view, features, find_metric(name))
            _make_room(self._prepared)
            self._prepared[view, name] = metric, metric(features[: self.size])
        self._prepared.move_to_end((view, name))
        return self._prepared[view, name]

    def _fit(self, view: View, features: torch.Tensor, spec: MetricSpec) -> Metric:
        if self.size == len(features) and not spec.learned:
            return Metric(spec)
        if view not in self._statistics:
            _make_room(self._statistics)
            self._statistics[view] = FeatureStatistics(features[self.size :], self.fit_labels)
        return self._statistics[view].fit(spec)


def _make_room(kept: OrderedDict[Any, Any]) -> None:
    """Forget what was used longest ago."""
    while len(kept) >= REMEMBERED:
        kept.popitem(last=False)
