"""Samplers of episodes: whatever is asked for and whatever the data has, episodes are sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autometa.core.errors import DataError
from autometa.data.episodes import Episode, EpisodeSpec, make_batches, sample_episodes
from autometa.data.images import ImagePool
from ingestion.tasks import Rows, TaskConfig, TaskDraw, draw_task, draw_test_tasks, group_rows

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)
"""Images of each class."""


@st.composite
def pools(draw: st.DrawFn) -> ImagePool:
    """Pools of one to three datasets with classes of any sizes."""
    sizes = draw(SIZES)
    datasets = draw(st.integers(1, 3))
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(
        np.repeat(np.arange(len(sizes)), sizes)
    )
    owners = np.array(draw(st.lists(st.integers(0, datasets - 1), min_size=len(sizes), max_size=len(sizes))))
    names = tuple(f"D{i}" for i in range(datasets))
    return ImagePool(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, owners, names)


@st.composite
def bounds(draw: st.DrawFn, least: int, most: int) -> tuple[int, int]:
    low = draw(st.integers(least, most))
    return low, draw(st.integers(low, most))


SPECS = st.builds(
    EpisodeSpec,
    ways=bounds(2, 9),
    shots=bounds(1, 9),
    queries_per_class=st.integers(1, 9),
    balanced=st.booleans(),
)


def assert_sound(episode: Episode, pool: ImagePool, spec: EpisodeSpec) -> None:
    assert 2 <= episode.ways <= spec.ways[1] and 1 <= episode.shots <= spec.shots[1]
    assert np.unique(episode.support_labels, return_counts=True)[1].tolist() == [episode.shots] * episode.ways
    assert len(episode.query_rows) == len(episode.query_labels) >= 1
    assert set(episode.query_labels) <= set(range(episode.ways))
    if spec.balanced:
        counts = np.bincount(episode.query_labels, minlength=episode.ways)
        assert len(set(counts)) == 1 and counts[0] <= spec.queries_per_class
    rows = np.concatenate([episode.support_rows, episode.query_rows])
    assert len(np.unique(rows)) == len(rows), "an image is both support and query, or is there twice"
    labels = np.concatenate([episode.support_labels, episode.query_labels])
    classes = {int(label): set(pool.labels[rows[labels == label]]) for label in np.unique(labels)}
    assert all(len(each) == 1 for each in classes.values()), "a label stands for two classes"
    assert len(set.union(*classes.values())) == len(classes), "two labels stand for one class"
    assert set(pool.dataset_of_class[pool.labels[rows]]) == {episode.dataset}


@pytest.mark.medium
@given(pools(), SPECS, st.integers(0, 2**32 - 1))
def test_sampled_episodes_are_sound_and_come_from_the_seed(
    pool: ImagePool, spec: EpisodeSpec, seed: int
) -> None:
    classes = np.arange(pool.classes)
    large = pool.dataset_of_class[pool.class_sizes >= 2]
    if np.bincount(large, minlength=1).max(initial=0) < 2:
        with pytest.raises(DataError, match="two classes of two images"):
            sample_episodes(pool, classes, spec, 3, np.random.default_rng(seed))
        return
    episodes = sample_episodes(pool, classes, spec, 5, np.random.default_rng(seed))
    again = sample_episodes(pool, classes, spec, 5, np.random.default_rng(seed))
    for episode, same in zip(episodes, again, strict=True):
        assert_sound(episode, pool, spec)
        assert all(np.array_equal(value, vars(same)[name]) for name, value in vars(episode).items())


@given(pools(), SPECS, st.integers(1, 200))
def test_batches_hold_every_episode_once_and_only_padding_beside(
    pool: ImagePool, spec: EpisodeSpec, most: int
) -> None:
    try:
        episodes = sample_episodes(pool, np.arange(pool.classes), spec, 7, np.random.default_rng(1))
    except DataError:
        return
    batches = make_batches(episodes, most)
    assert sorted(place for places, _ in batches for place in places) == list(range(7))
    for places, batch in batches:
        assert len(places) == 1 or batch.support_rows.numel() + batch.query_rows.numel() <= most
        for row, place in enumerate(places):
            real = batch.support_labels[row] >= 0
            assert batch.support_rows[row][real].tolist() == episodes[place].support_rows.tolist()
            assert batch.query_labels[row][batch.query_labels[row] >= 0].tolist() == (
                episodes[place].query_labels.tolist()
            )


@st.composite
def configs(draw: st.DrawFn) -> TaskConfig:
    ways, shots = draw(bounds(2, 9)), draw(bounds(1, 9))
    return TaskConfig(
        N=draw(st.none() | st.integers(2, 9)),
        min_N=ways[0],
        max_N=ways[1],
        k=draw(st.none() | st.integers(1, 9)),
        min_k=shots[0],
        max_k=shots[1],
        query_images_per_class=draw(st.integers(1, 9)),
    )


class Named:
    """A dataset as far as the draw needs it."""

    def __init__(self, sizes: list[int]) -> None:
        self.name = "D"
        self.labels = np.repeat(np.arange(len(sizes)), sizes)
        self.rows_of_class: tuple[Rows, ...] = group_rows(self.labels, len(sizes))


def assert_drawn(task: TaskDraw, dataset: Named, config: TaskConfig) -> None:
    smallest = min(map(len, dataset.rows_of_class))
    assert 2 <= task.ways <= max(config.N or config.max_N or 0, 2) and task.ways <= len(dataset.rows_of_class)
    assert 1 <= task.shots <= max(config.k or config.max_k or 0, 1)
    rows = np.concatenate([task.support_rows, task.query_rows])
    assert len(np.unique(rows)) == len(rows), "an image is both support and query, or is there twice"
    for label, cls in enumerate(task.classes):
        assert set(dataset.labels[task.support_rows[task.support_labels == label]]) == {cls}
        assert set(dataset.labels[task.query_rows[task.query_labels == label]]) == {cls}
        queries = int((task.query_labels == label).sum())
        assert 1 <= queries <= config.query_images_per_class and task.shots + queries <= smallest


@given(st.lists(st.integers(2, 12), min_size=2, max_size=8), configs(), st.integers(0, 2**32 - 1))
def test_drawn_tasks_are_sound_and_come_from_the_seed(
    sizes: list[int], config: TaskConfig, seed: int
) -> None:
    dataset = Named(sizes)
    tasks = list(draw_test_tasks([dataset], config, 4, seed))
    for task, same in zip(tasks, draw_test_tasks([dataset], config, 4, seed), strict=True):
        assert_drawn(task, dataset, config)
        assert all(np.array_equal(value, vars(same)[name]) for name, value in vars(task).items())
    rng = np.random.RandomState(seed)
    first = draw_task(rng, dataset.rows_of_class, config)
    assert np.array_equal(first.query_rows, tasks[0].query_rows), "the first task is that of the bare draw"
