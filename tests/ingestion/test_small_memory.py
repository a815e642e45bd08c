from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ingestion.generators import as_float
from ingestion.small_memory import ALLOCATOR, allocator_variables, task_images

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 3, 5, 5), dtype=np.uint8)
SMALL = {"METADL_MEMORY_BYTES": "500000000"}


def test_the_allocator_gives_memory_back_where_there_is_little() -> None:
    assert allocator_variables(500_000_000) == ALLOCATOR
    assert allocator_variables(4 * 10**9) == allocator_variables(None) == {}


@pytest.mark.parametrize("environment", [{}, SMALL, {"METADL_MEMORY_BYTES": "4000000000"}])
def test_images_of_a_task_are_the_same_mapped_or_not(environment: dict[str, str]) -> None:
    images = task_images(IMAGES, environment)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, as_float(IMAGES), rtol=0, atol=0)


def test_mapped_images_can_be_written_to_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = task_images(IMAGES, SMALL)
    images.mul_(2)
    torch.testing.assert_close(images, 2 * as_float(IMAGES))
    torch.testing.assert_close(task_images(IMAGES, SMALL), as_float(IMAGES))
    assert list(tmp_path.iterdir()) == []
    assert task_images(IMAGES[:0], SMALL).shape == (0, 3, 5, 5)
