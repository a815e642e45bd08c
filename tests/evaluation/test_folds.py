"""Folds: every class is held out once, and what the others are is enough to fit metrics to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation import folds as folds_module
from autometa.evaluation.folds import LEAST_CLASSES, Fold, draw_folds, fold_of_classes

SPEC = EpisodeSpec(ways=(2, 20), shots=(1, 5), queries_per_class=3)


def draw(pool: ImagePool, most: int = 3, protocol: str = "within-domain", episodes: int = 12) -> list[Fold]:
    test = TestSpec(tasks=10, episodes=SPEC, images=None, protocol=protocol)
    return draw_folds(pool, test, most, episodes, np.random.default_rng(0))


def pool_of(sizes: list[int], dataset_of_class: list[int] | None = None) -> ImagePool:
    """Classes with so many images each."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    datasets = np.array(dataset_of_class or [0] * len(sizes))
    names = tuple(f"D{d}" for d in range(int(datasets.max()) + 1))
    return ImagePool(np.zeros((len(labels), 3, 4, 4), np.uint8), labels, datasets, names)


def check(pool: ImagePool, folds: list[Fold]) -> None:
    """What holds of all folds."""
    for fold in folds:
        assert set(pool.labels[fold.rows]) <= set(fold.classes)
        for episode in fold.episodes.episodes:
            support, query = fold.rows[episode.support_rows], fold.rows[episode.query_rows]
            assert not set(support) & set(query)
            for label in range(episode.ways):
                own = np.concatenate(
                    [support[episode.support_labels == label], query[episode.query_labels == label]]
                )
                (of_class,) = set(pool.labels[own])
                assert pool.dataset_of_class[of_class] == episode.dataset
        rest = pool.labels[~np.isin(pool.labels, fold.classes)]
        assert len(set(rest)) > 1 and len(rest) > len(set(rest))  # metrics can be fitted


@pytest.mark.parametrize(
    ("classes", "datasets", "n"), [(16, 1, 3), (12, 1, 2), (30, 1, 5), (30, 2, 3), (4, 1, 2)]
)
def test_every_class_is_held_out_once(classes: int, datasets: int, n: int) -> None:
    pool = colour_pool(classes=classes, datasets=datasets)
    folds = draw(pool, most=5)
    assert len(folds) == n
    assert sorted(np.concatenate([fold.classes for fold in folds])) == list(range(classes))
    if classes >= 2 * LEAST_CLASSES * datasets:
        assert min(len(fold.classes) for fold in folds) >= LEAST_CLASSES
    for fold in folds:
        assert fold.rows.tolist() == np.flatnonzero(np.isin(pool.labels, fold.classes)).tolist()
        assert len(fold.episodes.episodes) == 12
    check(pool, folds)
    assert fold_of_classes(folds, classes).tolist() == [
        next(place for place, fold in enumerate(folds) if c in fold.classes) for c in range(classes)
    ]


def test_across_domains_whole_datasets_are_held_out() -> None:
    pool = colour_pool(classes=24, datasets=4)
    folds = draw(pool, most=3, protocol="cross-domain")
    assert len(folds) == 3
    for fold in folds:
        inside = set(pool.dataset_of_class[fold.classes])
        assert set(np.flatnonzero(np.isin(pool.dataset_of_class, list(inside)))) == set(fold.classes)
    check(pool, folds)


def test_across_domains_with_one_dataset_or_a_useless_one_classes_are_held_out() -> None:
    one = colour_pool(classes=16, datasets=1)
    assert len(draw(one, protocol="cross-domain")) == 3
    singles = pool_of([6] * 10 + [1] * 6, [0] * 10 + [1] * 6)
    folds = draw(singles, protocol="cross-domain")
    assert len(folds) == 2
    check(singles, folds)


def test_a_small_dataset_is_in_no_fold_but_keeps_the_others_in_theirs() -> None:
    pool = pool_of([6] * 15, [0] * 12 + [1] * 3)
    folds = draw(pool)
    assert sorted(np.concatenate([fold.classes for fold in folds])) == list(range(12))
    assert fold_of_classes(folds, 15)[12:].tolist() == [len(folds)] * 3
    check(pool, folds)


@pytest.mark.parametrize("sizes", [[5, 5, 5], [5], [1] * 12, [6, 6, 1, 1, 1, 1], []])
def test_without_two_folds_there_are_none(sizes: list[int]) -> None:
    if not sizes:
        pool = replace(colour_pool(), images=np.zeros((0, 3, 4, 4), np.uint8), labels=np.empty(0, np.int64))
    else:
        pool = pool_of(sizes)
    assert draw(pool) == []


def test_classes_of_one_image_are_held_out_but_not_asked_for() -> None:
    pool = pool_of([6] * 10 + [1] * 5)
    folds = draw(pool)
    assert len(folds) == 3
    check(pool, folds)
    asked = {
        int(c) for fold in folds for e in fold.episodes.episodes for c in pool.labels[fold.rows[e.query_rows]]
    }
    assert asked <= set(range(10))


def test_classes_without_images_are_no_hindrance() -> None:
    pool = pool_of([6] * 6 + [0] * 3 + [6] * 6)
    folds = draw(pool)
    assert not set(np.concatenate([fold.classes for fold in folds])) & {6, 7, 8}
    check(pool, folds)


def test_a_fold_has_so_many_images_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of([40] * 30)
    monkeypatch.setattr(folds_module, "MOST_ROWS", 100)
    for fold in draw(pool):
        assert len(fold.classes) == 10 and len(fold.rows) == 100  # ten images of each
        assert len(set(pool.labels[fold.rows])) == 10
    monkeypatch.setattr(folds_module, "MOST_ROWS", 40)
    folds = draw(pool)
    for fold in folds:  # images for the largest tasks of some classes, and all are held out
        counts = np.bincount(pool.labels[fold.rows])
        assert len(fold.rows) == 40 and set(counts) == {0, SPEC.shots[1] + SPEC.queries_per_class}
        assert len(fold.classes) == 10
    check(pool, folds)
