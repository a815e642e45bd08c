"""The validation set: held-out images and episodes to compare candidates on, and images to fit metrics on."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, choose_rows
from autometa.data.splits import split_classes, split_datasets
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.heads import FeatureStatistics, Metric, MetricSpec, Params, find_metric

HELD_OUT_CLASSES = 0.5
"""Share of the classes to hold out."""
LEAST_IMAGES = 150
"""Number of validation images, at least."""
LEAST_FIT_IMAGES = 300
"""Number of images to fit metrics on, at least; otherwise as many as validation images."""
CACHE_SIZE = 6
"""Number of results that each cache of a validation set keeps."""


@dataclass(frozen=True)
class ValidationSet:
    """Images of a pool: `size` validation images of held-out classes, then images of other classes to fit metrics on.

    `images` uint8 [n, 3, h, w]; `keys` [n], their rows in the pool; `labels` int64 [n]. `episodes` over the
    validation images select candidates; `fresh` episodes over the same images give the final figure. `balanced`:
    each class of a test task is declared to have as many queries.
    """

    images: NDArray[np.uint8]
    keys: list[int]
    size: int
    labels: torch.Tensor
    episodes: ValidationEpisodes
    fresh: ValidationEpisodes
    balanced: bool
    _statistics: OrderedDict[View, FeatureStatistics] = field(default_factory=OrderedDict, init=False)
    _transformed: OrderedDict[tuple[View, str], tuple[Metric, torch.Tensor]] = field(
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
        """Hold out classes and draw `n_episodes` for selection and as many fresh ones, over about `max_images`.

        If the test is on other datasets and the pool has several, whole datasets are held out. DataError if no
        episode can be drawn.
        """
        spec = test.episodes
        split = split_datasets if test.is_cross_domain else split_classes
        fit_classes, held_out = split(pool, HELD_OUT_CLASSES, rng)
        per_class = spec.shots[1] + spec.queries_per_class
        rows = choose_rows(pool, held_out, per_class, max(max_images, LEAST_IMAGES), rng)
        most = max(max_images, LEAST_FIT_IMAGES)
        fit_rows = choose_rows(pool, fit_classes, max(per_class, most // max(len(fit_classes), 1)), most, rng)
        chosen = np.concatenate([rows, fit_rows])
        images = pool.images[chosen]
        part = replace(pool, images=images[: len(rows)], labels=pool.labels[rows])
        episodes, fresh = (
            ValidationEpisodes(sample_episodes(part, held_out, spec, n_episodes, rng)) for _ in range(2)
        )
        labels = torch.from_numpy(pool.labels[chosen])
        return cls(images, chosen.tolist(), len(rows), labels, episodes, fresh, spec.balanced)

    @property
    def fit_labels(self) -> torch.Tensor:
        """Labels int64 [n - size] of the images to fit metrics on."""
        return self.labels[self.size :]

    def answer(
        self,
        view: View,
        features: torch.Tensor,
        head: str,
        params: Params,
        episodes: ValidationEpisodes | None = None,
    ) -> Answer:
        """The answer of a head on the episodes for selection, or on other `episodes` over the validation images,
        given the features [n, d] of all images in a view."""
        metric, transformed = self._transform(view, features, params["transform"])
        return (episodes or self.episodes).answer(transformed, head, params, metric, balanced=self.balanced)

    def _transform(self, view: View, features: torch.Tensor, name: str) -> tuple[Metric, torch.Tensor]:
        """The fitted metric called `name`, and the features [size, d] of the validation images after it; cached."""
        if (view, name) not in self._transformed:
            metric = self._fit(view, features, find_metric(name))
            _drop_oldest(self._transformed)
            self._transformed[view, name] = metric, metric(features[: self.size])
        self._transformed.move_to_end((view, name))
        return self._transformed[view, name]

    def _fit(self, view: View, features: torch.Tensor, spec: MetricSpec) -> Metric:
        if self.size == len(features) and not spec.learned:
            return Metric(spec)
        if view not in self._statistics:
            _drop_oldest(self._statistics)
            self._statistics[view] = FeatureStatistics(features[self.size :], self.fit_labels)
        return self._statistics[view].fit(spec)


def _drop_oldest(cache: OrderedDict[Any, Any]) -> None:
    """Make room for one more result in a cache."""
    while len(cache) >= CACHE_SIZE:
        cache.popitem(last=False)
