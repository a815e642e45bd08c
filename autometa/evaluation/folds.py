"""Folds: every class of meta-train is held out once, with episodes over it, so that choices rest on all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autometa.core.errors import DataError
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, Rows, choose_rows
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import ValidationEpisodes

LEAST_CLASSES = 5
"""Classes of a fold, at least, where there are enough for two folds of them: with fewer, tasks are too easy."""
LEAST_FIT_CLASSES = 2
"""Classes that are left to fit metrics on, at least."""
ENOUGH_ANSWERS = 300
"""Classes asked for over all episodes of a fold: with more of them an episode says more, and takes longer."""
MOST_ROWS = 2000
"""Images of a fold, about, at most: the inner products of all pairs of them are kept for every view."""


@dataclass(frozen=True)
class Fold:
    """Held-out `classes` [c], the `rows` [m] of images of theirs, and episodes whose rows are places in `rows`."""

    classes: Rows
    rows: Rows
    episodes: ValidationEpisodes


def draw_folds(
    pool: ImagePool, test: TestSpec, most_folds: int, n_episodes: int, rng: np.random.Generator
) -> list[Fold]:
    """Folds of about equally many classes of a pool, `most_folds` of them or fewer where classes are few, each with
    `n_episodes` episodes of the test's form, or fewer where these have many classes. Where the test is on other
    datasets and the pool has several, whole datasets are held out. An empty list where two folds cannot be made."""
    for deal in (_deal_datasets, _deal_classes) if test.is_cross_domain else (_deal_classes,):
        folds = []
        for classes in deal(pool, most_folds, rng):
            try:
                folds.append(_make_fold(pool, classes, test, n_episodes, rng))
            except DataError:  # a fold without two classes of two images says nothing
                continue
        if len(folds) > 1:
            return folds
    return []


def _make_fold(
    pool: ImagePool, classes: Rows, test: TestSpec, n_episodes: int, rng: np.random.Generator
) -> Fold:
    """The fold of some classes. Where these have too many images, some of each, and where that is not enough, those
    of some classes. DataError where no episode can be drawn."""
    largest = test.episodes.shots[1] + test.episodes.queries_per_class
    rows = choose_rows(pool, classes, max(MOST_ROWS // len(classes), largest), MOST_ROWS, rng)
    part = ImagePool(
        pool.images[rows, :, :1, :1], pool.labels[rows], pool.dataset_of_class, pool.datasets
    )  # episodes need no pixels
    low, high = (min(ways, len(classes)) for ways in test.episodes.ways)
    enough = int(np.ceil(2 * ENOUGH_ANSWERS / (low + high)))
    episodes = sample_episodes(part, classes, test.episodes, min(n_episodes, enough), rng)
    return Fold(classes, rows, ValidationEpisodes(episodes))


def fold_of_classes(folds: Sequence[Fold], classes: int) -> Rows:
    """The fold in which each of so many classes is held out, int64 [classes]; the number of folds where in none."""
    places = np.full(classes, len(folds), dtype=np.int64)
    for place, fold in enumerate(folds):
        places[fold.classes] = place
    return places


def _deal_datasets(pool: ImagePool, most_folds: int, rng: np.random.Generator) -> list[Rows]:
    """Whole datasets dealt to folds; empty where there are not two datasets with two classes each."""
    usable = [d for d, own in enumerate(pool.classes_of_dataset) if len(own) > 1]
    if len(usable) < 2:
        return []
    hands = np.array_split(rng.permutation(usable), min(most_folds, len(usable)))
    return [np.flatnonzero(np.isin(pool.dataset_of_class, hand)) for hand in hands]


def _deal_classes(pool: ImagePool, most_folds: int, rng: np.random.Generator) -> list[Rows]:
    """Classes dealt to folds in turn, dataset by dataset; empty where there are too few for two folds. Datasets with
    too few classes are in no fold."""
    of_dataset = [own[pool.class_sizes[own] > 0] for own in pool.classes_of_dataset]
    large = [own for own in of_dataset if len(own) >= 2 * LEAST_FIT_CLASSES]
    if not large:
        return []
    n_folds = min(most_folds, max(min(map(len, large)) // LEAST_CLASSES, 2))
    hands: list[list[int]] = [[] for _ in range(n_folds)]
    for own in large:
        for place, hand in enumerate(np.array_split(rng.permutation(own), n_folds)):
            hands[place].extend(hand.tolist())
    return [np.sort(np.array(hand, dtype=np.int64)) for hand in hands]
