"""How many images a network embeds at a time, and the memory that this takes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.machine import free_bytes, starts_cold

LARGEST_BATCH = {"cpu": 64}
LARGEST_GPU_BATCH = 256
"""Images that are embedded at a time, at most: GPUs are idle with fewer."""
BYTES_PER_PIXEL = 400
"""Working memory of a forward pass per input pixel: a generous figure for the catalogue's networks."""
MEMORY_SHARE = 1 / 3
"""Of the memory that is free, for a forward pass."""
UNKNOWN_BYTES = 2**31
"""Free memory of the host that is taken for granted where nothing says how much there is."""

Images = NDArray[np.uint8] | torch.Tensor


def batch_size(device: str, px: int, host_bytes: int = UNKNOWN_BYTES) -> int:
    """How many images of this size to embed at a time, with so much free memory on the host; a device with memory of
    its own goes by that."""
    own_bytes = free_bytes(device)
    room = MEMORY_SHARE * (host_bytes if own_bytes is None else own_bytes)
    largest = LARGEST_BATCH.get(device, LARGEST_GPU_BATCH)
    return int(np.clip(room // (BYTES_PER_PIXEL * px**2), 1, largest))


def fill_batch(images: Images, device: str, px: int) -> Images:
    """Images to measure speed with at a size: on a device that starts cold repeated to fill a batch, as its speed is
    that of full batches."""
    if not starts_cold(device) or not len(images):
        return images
    places = np.arange(max(batch_size(device, px), len(images))) % len(images)
    return images[places]
