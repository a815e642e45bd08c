"""The size at which images are prepared, where it is not given; and how far from square they are.

The format has 128 px, and what is declared as such (a MetaDL root) stays at that. Other images are prepared at the
size that they have, within bounds: what is thrown away here no network can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from ingestion.formats import quiet_decoders, read_image_size
from ingestion.sources import Source

FORMAT_PX, LARGEST_PX, STEP_PX = 128, 256, 32
SAMPLE = 48
"""Images whose size is looked up, in their headers."""
BYTES_PER_VALUE = 10
"""Of a pixel's channel in a task: float32 of the support and of the query in the submission, and bytes on both
sides."""
MEMORY_SHARE = 0.2
"""Of the memory budget: the images of the largest task."""
FAR_FROM_SQUARE = 1.25
"""Longer side over the shorter one, of most images, from which on it may matter how they become square."""


def choose_image_size(source: Source, task_images: int, memory_bytes: int | None) -> int:
    """Pixels for the images of a source, of which a task shows `task_images` at most, within a budget of memory."""
    if source.is_metadl_root:
        return FORMAT_PX
    sides = shorter_sides([file for dataset in source.datasets.values() for file in dataset.files])
    px = suit_sides(sides)
    room = float("inf") if memory_bytes is None else MEMORY_SHARE * memory_bytes
    while px > FORMAT_PX and task_images * 3 * px**2 * BYTES_PER_VALUE > room:
        px -= STEP_PX
    return px


def suit_sides(sides: Sequence[int]) -> int:
    """Pixels that suit images with these shorter sides: those of most, within bounds."""
    wanted = int(median(sides)) // STEP_PX * STEP_PX if sides else FORMAT_PX
    return int(np.clip(wanted, FORMAT_PX, LARGEST_PX))


def shorter_sides(files: Sequence[Path]) -> list[int]:
    """The shorter sides of a few images, evenly spread over all; those that cannot be read are left out."""
    return [min(size) for size in sample_sizes(files)]


def elongation(sizes: Sequence[tuple[int, int]]) -> float:
    """Longer side over the shorter one of the median image; 1 where there is none. `sizes`: width and height."""
    return median(max(size) / min(size) for size in sizes) if sizes else 1.0


def sample_sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Widths and heights of a few images, evenly spread over all; those that cannot be read are left out."""
    places = np.unique(np.linspace(0, len(files) - 1, SAMPLE).astype(int)) if files else ()
    with quiet_decoders():
        sizes = [read_image_size(files[place]) for place in places]
    return [size for size in sizes if size is not None]
