"""Arrays of images in memory or, where that is short, in a file without a name, which the kernel keeps in memory only
as long as there is room."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autometa.data.images import Rows

CHUNK_ROWS = 64
"""Images that are copied at a time."""


def empty_images(shape: Sequence[int], *, in_file: bool) -> NDArray[np.uint8]:
    """An array uint8 to fill; in memory, too, where no disk has room for it."""
    n_bytes = math.prod(shape)
    if in_file and n_bytes:
        try:
            with tempfile.TemporaryFile() as file:
                os.posix_fallocate(
                    file.fileno(), 0, n_bytes
                )  # or else a full disk would end the process later
                return np.memmap(file, np.uint8, "r+", shape=tuple(shape))
        except OSError:
            pass
    return np.empty(tuple(shape), np.uint8)


def copy_rows(
    sources: Sequence[NDArray[np.uint8]], rows: Sequence[Rows], *, in_file: bool
) -> NDArray[np.uint8]:
    """These rows of each of some arrays of images [n, 3, h, w], one after the other, few at a time."""
    images = empty_images((sum(map(len, rows)), *sources[0].shape[1:]), in_file=in_file)
    place = 0
    for source, wanted in zip(sources, rows, strict=True):
        for start in range(0, len(wanted), CHUNK_ROWS):
            part = wanted[start : start + CHUNK_ROWS]
            images[place : place + len(part)] = source[part]
            place += len(part)
    return images
