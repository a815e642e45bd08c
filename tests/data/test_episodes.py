"""Image pools, episodes, batches."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.core.errors import DataError
from autometa.data.episodes import EpisodeSpec, make_batches, sample_episodes
from autometa.data.images import ImagePool
from autometa.data.splits import split_classes, split_datasets


def test_classes_are_held_out_within_each_dataset() -> None:
    pool = colour_pool(classes=12, datasets=2)
    fit, held = split_classes(pool, 0.5, np.random.default_rng(0))
    assert sorted([*fit, *held]) == list(range(12))
    assert np.bincount(pool.dataset_of_class[held]).tolist() == [3, 3]


def test_small_datasets_are_held_out_whole() -> None:
    pool = colour_pool(classes=6, datasets=2)
    fit, held = split_classes(pool, 0.5, np.random.default_rng(0))
    assert len(fit) == 0
    assert len(held) == 6


@pytest.mark.parametrize("datasets", [2, 3, 4])
def test_whole_datasets_are_held_out_where_there_are_several(datasets: int) -> None:
    pool = colour_pool(classes=12, datasets=datasets)
    for seed in range(10):
        fit, held = split_datasets(pool, 0.5, np.random.default_rng(seed))
        assert sorted([*fit, *held]) == list(range(12)) and len(fit) and len(held)
        assert not set(pool.dataset_of_class[fit]) & set(pool.dataset_of_class[held])
        assert abs(len(held) - 6) <= 12 / datasets


def test_datasets_of_unlike_sizes_are_split_by_classes() -> None:
    pool = colour_pool(classes=12)
    unlike = ImagePool(pool.images, pool.labels, np.array([0] * 10 + [1] * 2), ("large", "small"))
    for seed in range(10):
        fit, held = split_datasets(unlike, 0.5, np.random.default_rng(seed))
        assert len(fit) >= 4 and set(unlike.dataset_of_class[held]) == {0, 1}


def test_a_dataset_alone_is_split_by_classes() -> None:
    alone = colour_pool(classes=12)
    fit, held = split_datasets(alone, 0.5, np.random.default_rng(0))
    assert len(fit) == len(held) == 6
    tiny = ImagePool(alone.images, alone.labels, np.array([0] * 11 + [1]), ("big", "one class"))
    fit, held = split_datasets(tiny, 0.5, np.random.default_rng(0))
    assert len(fit) > 2 and len(held) > 2


def test_episodes_keep_to_their_form() -> None:
    pool = colour_pool()
    spec = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
    episodes = sample_episodes(pool, np.arange(12), spec, 40, np.random.default_rng(0))
    assert {e.ways for e in episodes} == {2, 3, 4}
    assert {e.shots for e in episodes} == {1, 2, 3, 4, 5}
    for e in episodes:
        assert len(e.support_rows) == e.ways * e.shots
        assert len(e.query_rows) == 3 * e.ways
        assert set(e.support_rows).isdisjoint(e.query_rows)
        for rows, labels in ((e.support_rows, e.support_labels), (e.query_rows, e.query_labels)):
            classes = [set(pool.labels[rows[labels == way]]) for way in range(e.ways)]
            assert all(len(c) == 1 for c in classes)
            assert len(set.union(*classes)) == e.ways
        assert len(set(pool.dataset_of_class[pool.labels[e.support_rows]])) == 1


def test_episodes_are_clamped_to_small_classes() -> None:
    pool = colour_pool(classes=4, per_class=4, datasets=1)
    spec = EpisodeSpec(ways=(2, 20), shots=(10, 20), queries_per_class=20)
    for e in sample_episodes(pool, np.arange(4), spec, 5, np.random.default_rng(0)):
        assert e.ways <= 4
        assert len(set(e.support_rows) | set(e.query_rows)) == 4 * e.ways


def test_no_episode_without_two_classes() -> None:
    pool = colour_pool(classes=4, per_class=1, datasets=1)
    with pytest.raises(DataError, match="two classes"):
        sample_episodes(pool, np.arange(4), EpisodeSpec(), 1, np.random.default_rng(0))


def test_batches_hold_every_episode_once_and_mark_padding() -> None:
    pool = colour_pool()
    spec = EpisodeSpec(ways=(2, 5), shots=(1, 5), queries_per_class=3)
    episodes = sample_episodes(pool, np.arange(12), spec, 20, np.random.default_rng(0))
    batches = make_batches(episodes, max_images=120)
    assert sorted(i for places, _ in batches for i in places) == list(range(20))
    for places, batch in batches:
        assert batch.support_rows.numel() + batch.query_rows.numel() <= 120 or len(places) == 1
        for row, i in enumerate(places):
            real = batch.support_labels[row] >= 0
            assert batch.support_rows[row][real].tolist() == episodes[i].support_rows.tolist()
            assert int(real.sum()) == episodes[i].support_rows.size


def test_a_pool_checks_its_images() -> None:
    with pytest.raises(DataError, match="uint8"):
        ImagePool(
            cast(Any, np.zeros((2, 3, 4, 4))),
            np.zeros(2, dtype=np.int64),
            np.zeros(1, dtype=np.int64),
            ("D",),
        )
    with pytest.raises(DataError, match="labels"):
        ImagePool(np.zeros((2, 3, 4, 4), np.uint8), np.zeros(3, np.int64), np.zeros(1, np.int64), ("D",))
