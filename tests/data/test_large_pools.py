"""Pools of many images, classes and datasets: each is looked at once, and copied once at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from autometa.core.budget import UNLIMITED, MemoryBudget
from autometa.data import images, pool
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, Rows, choose_rows, group_places, take_share_of_each_class
from autometa.data.pool import collect_pool

CLASSES, DATASETS = 300, 30


class Counted(np.ndarray):
    """Labels that count how many of them are compared with something."""

    compared = 0

    def __eq__(self, other: object) -> Any:
        Counted.compared += self.size
        return np.asarray(self) == other

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.setattr(Counted, "compared", 0)
    return np.random.default_rng(0).permutation(np.arange(6000) % CLASSES).view(Counted)


def large_pool(labels: Rows) -> ImagePool:
    dataset_of_class = (np.arange(CLASSES) % DATASETS).view(Counted)
    names = tuple(f"set {number}" for number in range(DATASETS))
    return ImagePool(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, dataset_of_class, names)


def test_groups_are_those_that_a_search_for_each_finds() -> None:
    numbers = np.random.default_rng(1).integers(0, 7, 50)
    for group, places in enumerate(group_places(numbers, 9)):
        assert places.tolist() == np.flatnonzero(numbers == group).tolist()


def test_no_class_and_no_dataset_is_searched_for_among_all(labels: Rows) -> None:
    """That would take images × classes, and classes × datasets."""
    some, rng = large_pool(labels), np.random.default_rng(0)
    take_share_of_each_class(labels, 0.5, rng)
    rows = choose_rows(some, np.arange(CLASSES), 5, 400, rng)
    sample_episodes(some, np.arange(CLASSES), EpisodeSpec((2, 5), (1, 5), 2), 40, rng)
    assert len(rows) >= 400 and Counted.compared <= len(labels)


def test_rows_are_chosen_as_by_a_search_for_each_dataset(labels: Rows) -> None:
    """The same random numbers give the same rows: they decide what a seed means."""
    some, rng = large_pool(np.asarray(labels)), np.random.default_rng(7)
    found = choose_rows(some, np.arange(CLASSES), 3, 250, np.random.default_rng(7))
    queues = [
        rng.permutation(np.flatnonzero(np.asarray(some.dataset_of_class) == d)) for d in range(DATASETS)
    ]
    in_turns = [queue[turn] for turn in range(CLASSES // DATASETS) for queue in queues]
    expected: list[int] = []
    for place, c in enumerate(in_turns):
        if len(expected) >= 250 and place >= 2 * DATASETS:
            break
        expected += rng.permutation(some.rows_of_class[c])[:3].tolist()
    assert found.tolist() == sorted(expected)


def test_datasets_of_all_sizes_take_turns() -> None:
    queues = [np.array([1, 2, 3]), np.array([], dtype=np.int64), np.array([7])]
    assert list(images._in_turns(queues)) == [1, 7, 2, 3]


@dataclass
class Given:
    """A dataset as ingestion offers it."""

    name: str
    images: np.ndarray
    labels: Rows


@dataclass
class Generator:
    image_sets: tuple[Given, ...]


def test_datasets_are_copied_once_into_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not first by dataset and then together, which would take the memory of two pools."""
    rng = np.random.default_rng(0)
    sets = tuple(
        Given(name, rng.integers(0, 256, (40, 3, 4, 4), np.uint8), np.arange(40) % 4) for name in ("a", "b")
    )
    copied: list[int] = []
    original = np.empty

    def counting(*given: Any, **options: Any) -> np.ndarray:
        made = original(*given, **options)
        copied.append(made.nbytes)
        return made

    monkeypatch.setattr(pool.np, "empty", counting)
    joined = collect_pool(Generator(sets), UNLIMITED, MemoryBudget(2**40), lambda _: None)
    assert max(copied) == joined.images.nbytes == sum(one.images.nbytes for one in sets)
    assert (joined.images[40:] == sets[1].images).all() and joined.images.base is None
