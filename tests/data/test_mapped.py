from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autometa.core.budget import UNLIMITED, MemoryBudget
from autometa.data.mapped import copy_rows, empty_images
from autometa.data.pool import collect_pool

IMAGES = np.random.default_rng(0).integers(0, 256, (100, 3, 4, 4), dtype=np.uint8)


def test_images_lie_in_a_file_where_that_is_asked_for() -> None:
    mapped = empty_images((5, 3, 4, 4), in_file=True)
    mapped[:] = IMAGES[:5]
    assert isinstance(mapped, np.memmap) and mapped.flags.writeable
    np.testing.assert_array_equal(mapped, IMAGES[:5])
    assert not isinstance(empty_images((5, 3, 4, 4), in_file=False), np.memmap)
    assert empty_images((0, 3, 4, 4), in_file=True).shape == (0, 3, 4, 4)


def test_images_lie_in_memory_where_no_disk_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert not isinstance(empty_images((5, 3, 4, 4), in_file=True), np.memmap)


@pytest.mark.parametrize("in_file", [False, True])
def test_rows_of_several_arrays_are_copied_one_after_the_other(in_file: bool) -> None:
    rows = [np.arange(0, 100, 2), np.array([7, 3])]
    copied = copy_rows([IMAGES, IMAGES], rows, in_file=in_file)
    np.testing.assert_array_equal(copied, np.concatenate([IMAGES[rows[0]], IMAGES[rows[1]]]))


def test_a_pool_of_a_small_budget_is_the_same_and_has_all_images() -> None:
    labels = np.repeat(np.arange(10), 10)
    sets = [SimpleNamespace(name=name, images=IMAGES, labels=labels) for name in "ab"]
    generator: Any = SimpleNamespace(image_sets=sets)
    small = collect_pool(generator, UNLIMITED, MemoryBudget(10**9), print)
    usual = collect_pool(generator, UNLIMITED, MemoryBudget(10**11), print)
    assert isinstance(small.images, np.memmap) and not isinstance(usual.images, np.memmap)
    for name in ("images", "labels", "dataset_of_class", "datasets"):
        np.testing.assert_array_equal(getattr(small, name), getattr(usual, name))
