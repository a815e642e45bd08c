"""Pools that are collected from the stream of the original ingestion."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autometa.core.budget import UNLIMITED, MemoryBudget
from autometa.core.errors import DataError
from autometa.data import pool
from autometa.data.images import as_uint8
from autometa.data.pool import collect_pool

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(40) % 4
MEMORY = MemoryBudget(2**40)


def item(rows: list[int], dataset: str = "d") -> Any:
    images, labels = torch.from_numpy(IMAGES[rows]).float() / 255, torch.from_numpy(LABELS[rows])
    half = len(rows) // 2
    return SimpleNamespace(
        dataset=dataset,
        support_set=(images[:half], labels[:half], labels[:half]),
        query_set=(images[half:], labels[half:], labels[half:]),
    )


def stream(n: int) -> Iterator[Any]:
    """Items of six images, of which one is new."""
    del n
    for new in range(len(IMAGES)):
        yield item([max(new - k, 0) for k in range(5, -1, -1)], dataset=f"of class {LABELS[new]}")


@pytest.mark.parametrize("rows", [1, 7, 40, 1000])
def test_images_are_collected_once_in_the_order_in_which_they_came(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(pool, "BLOCK_BYTES", rows * IMAGES[0].nbytes)
    found = collect_pool(stream, UNLIMITED, MEMORY, lambda _: None)
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.labels[:4], [0, 1, 2, 3])


def test_one_new_image_keeps_no_other_of_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[NDArray[np.uint8]]] = []
    alive: list[int] = []

    def watched(images: torch.Tensor) -> NDArray[np.uint8]:
        alive.append(sum(one() is not None for one in made))
        array = as_uint8(images)
        made.append(weakref.ref(array))
        return array

    monkeypatch.setattr(pool, "as_uint8", watched)
    collect_pool(stream, UNLIMITED, MEMORY, lambda _: None)
    assert len(made) == 2 * len(IMAGES) and max(alive) <= 2


def test_images_of_two_sizes_are_refused_in_one_line() -> None:
    def sizes(n: int) -> Iterator[Any]:
        del n
        for px in (8, 1):
            yield torch.zeros(2, 3, px, px) + px / 10, torch.tensor([0, 1])

    with pytest.raises(DataError, match=r"images \(3, 8, 8\) and \(3, 1, 1\); give one size"):
        collect_pool(sizes, UNLIMITED, MEMORY, lambda _: None)
