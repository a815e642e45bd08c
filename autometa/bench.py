"""The bench: the images, features and paired episodes on which candidates are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.episodes import EpisodeSpec, ImagePool, Rows, sample_episodes, split_classes
from autometa.evaluation import Answer, ValidationEpisodes
from autometa.heads import FeatureStatistics, Params

HELD_OUT_CLASSES = 0.5
STATISTICS_IMAGES = 256
LEAST_IMAGES = 150

Embed = Callable[[View, NDArray[np.uint8], list[int]], torch.Tensor]


@dataclass(frozen=True)
class Bench:
    """`size` validation images first, then images of the classes to fit on, for statistics; `keys` are
    their rows in the pool; `episodes` are drawn over the former, `fresh` too, for the final figure."""

    images: NDArray[np.uint8]
    keys: list[int]
    size: int
    episodes: ValidationEpisodes
    fresh: ValidationEpisodes

    @classmethod
    def of(
        cls, pool: ImagePool, spec: EpisodeSpec, n_episodes: int, max_images: int, rng: np.random.Generator
    ) -> Bench:
        """Hold out classes and draw `n_episodes` for selection and as many fresh ones, over about
        `max_images` images."""
        fit, held = split_classes(pool, HELD_OUT_CLASSES, rng)
        per_class = spec.shots[1] + spec.queries_per_class
        rows = _rows_within(pool, held, per_class, max(max_images, LEAST_IMAGES), rng)
        others = np.concatenate([pool.rows_of_class[c] for c in fit]) if len(fit) else rows
        n_statistics = min(STATISTICS_IMAGES, max(max_images, LEAST_IMAGES) // 2)
        chosen = np.concatenate([rows, rng.permutation(others)[:n_statistics]])
        images = pool.images[chosen]
        sub = replace(pool, images=images[: len(rows)], labels=pool.labels[rows])
        episodes, fresh = (
            ValidationEpisodes(sample_episodes(sub, held, spec, n_episodes, rng)) for _ in range(2)
        )
        return cls(images, chosen.tolist(), len(rows), episodes, fresh)

    def statistics(self, features: torch.Tensor) -> FeatureStatistics:
        """What the classes to fit on say, given the features of all images of the bench."""
        return FeatureStatistics(features[self.size :].mean(0))

    def answer(self, features: torch.Tensor, head: str, params: Params, *, fresh: bool = False) -> Answer:
        """What a head answers, given the features of all images of the bench."""
        episodes = self.fresh if fresh else self.episodes
        return episodes.answer(features[: self.size], head, params, self.statistics(features))


def _rows_within(
    pool: ImagePool, classes: Rows, per_class: int, limit: int, rng: np.random.Generator
) -> Rows:
    """About `limit` rows of these classes: at most `per_class` of each, and fewer classes if needed
    (datasets in turn, so that none is left out)."""
    datasets = range(len(pool.datasets))
    queues = [rng.permutation(classes[pool.dataset_of_class[classes] == d]) for d in datasets]
    turns = [c for turn in range(max(map(len, queues))) for c in (q[turn] for q in queues if turn < len(q))]
    rows: list[Rows] = []
    count = 0
    for place, c in enumerate(turns):
        if count >= limit and place >= 2 * len(queues):
            break
        rows.append(rng.permutation(pool.rows_of_class[c])[:per_class])
        count += len(rows[-1])
    return np.sort(np.concatenate(rows))
