"""Folds: every class of meta-train is held out once, with episodes over it, so that choices rest on all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autometa.core.errors import DataError
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import ValidationEpisodes

LEAST_CLASSES = 5
"""Classes of a fold, at least, where there are enough for two folds of them: with fewer, tasks are too easy."""
LEAST_FIT_CLASSES = 2
"""Classes that are left to fit metrics on, at least."""


@dataclass(frozen=True)
class Fold:
    """Held-out `classes` [c], the `rows` [m] of their images, and episodes whose rows are places in `rows`."""

    classes: Rows
    rows: Rows
    episodes: ValidationEpisodes


def draw_folds(
    pool: ImagePool, test: TestSpec, most_folds: int, n_episodes: int, rng: np.random.Generator
) -> list[Fold]:
    """Folds of about equally many classes of a pool, `most_folds` of them or fewer where classes are few, each with
    `n_episodes` episodes of the test's form. Where the test is on other datasets and the pool has several, whole
    datasets are held out. An empty list where two folds cannot be made."""
    dealt = _deal_datasets(pool, most_folds, rng) if test.is_cross_domain else []
    dealt = dealt or _deal_classes(pool, most_folds, rng)
    folds = []
    for classes in dealt:
        rows = np.flatnonzero(np.isin(pool.labels, classes))
        part = replace(pool, images=pool.images[rows], labels=pool.labels[rows])
        try:
            episodes = sample_episodes(part, classes, test.episodes, n_episodes, rng)
        except DataError:  # a fold without a class of two images says nothing
            continue
        folds.append(Fold(classes, rows, ValidationEpisodes(episodes)))
    return folds if len(folds) > 1 else []


def fold_of_classes(folds: Sequence[Fold], classes: int) -> Rows:
    """The fold in which each of so many classes is held out, int64 [classes]; the number of folds where in none."""
    places = np.full(classes, len(folds), dtype=np.int64)
    for place, fold in enumerate(folds):
        places[fold.classes] = place
    return places


def _deal_datasets(pool: ImagePool, most_folds: int, rng: np.random.Generator) -> list[Rows]:
    """Whole datasets dealt to folds; empty where there are not two datasets with two classes each."""
    usable = [d for d in range(len(pool.datasets)) if (pool.dataset_of_class == d).sum() > 1]
    if len(usable) < 2:
        return []
    hands = np.array_split(rng.permutation(usable), min(most_folds, len(usable)))
    return [np.flatnonzero(np.isin(pool.dataset_of_class, hand)) for hand in hands]


def _deal_classes(pool: ImagePool, most_folds: int, rng: np.random.Generator) -> list[Rows]:
    """Classes dealt to folds in turn, dataset by dataset; empty where there are too few for two folds."""
    present = np.unique(pool.labels)
    smallest = min(
        (int((pool.dataset_of_class[present] == d).sum()) for d in np.unique(pool.dataset_of_class[present])),
        default=0,
    )
    n_folds = min(most_folds, max(smallest // LEAST_CLASSES, 2))
    if smallest < 2 * LEAST_FIT_CLASSES:
        return []
    hands: list[list[int]] = [[] for _ in range(n_folds)]
    for dataset in np.unique(pool.dataset_of_class[present]):
        own = rng.permutation(present[pool.dataset_of_class[present] == dataset])
        for place, hand in enumerate(np.array_split(own, n_folds)):
            hands[place].extend(hand.tolist())
    return [np.sort(np.array(hand, dtype=np.int64)) for hand in hands]
