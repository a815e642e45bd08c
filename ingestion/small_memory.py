"""What ingestion does differently where a submission has little memory.

Its allocator gives back at once what is freed, which takes a little time and saves some 100 MB; and the images of a
task, float32 as the format wants them, are mapped from a file, whose pages the kernel takes back when it needs
memory. The tensors can be written to, as others: what is written to is a page of the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ingestion.generators import as_float

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

SMALL_BYTES = 1_500_000_000
"""Budgets below this are small."""
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "262144",
    "MALLOC_TRIM_THRESHOLD_": "262144",
}
"""For the allocator of glibc: no memory of its own for each thread, and large blocks go back when they are freed."""
CHUNK = 32
"""Images that are converted at a time."""


def is_small(memory_bytes: int | None) -> bool:
    """Whether a budget is small."""
    return memory_bytes is not None and memory_bytes < SMALL_BYTES


def allocator_variables(memory_bytes: int | None) -> dict[str, str]:
    """Environment variables for the processes of a submission with this budget."""
    return ALLOCATOR if is_small(memory_bytes) else {}


def task_images(images: NDArray[np.uint8], environment: Mapping[str, str] = os.environ) -> torch.Tensor:
    """uint8 images [n, 3, px, px] → float32 in [0, 1], always a copy: in memory, or mapped from a file without a name
    where ingestion has declared a small budget. OSError where that cannot be written."""
    import torch  # noqa: PLC0415 - slow to import

    declared = environment.get("METADL_MEMORY_BYTES")
    if not images.size or not is_small(int(declared) if declared else None):
        return as_float(images)
    with tempfile.NamedTemporaryFile() as file:
        for start in range(0, len(images), CHUNK):
            file.write(as_float(images[start : start + CHUNK]).numpy().data)
        file.flush()
        mapped = torch.from_file(file.name, shared=False, size=images.size, dtype=torch.float32)
    return mapped.reshape(images.shape)
