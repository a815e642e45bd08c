"""How many images a network embeds at a time, the memory that this takes, and the way of images to a device."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones.catalogue import BackboneSpec
from autometa.backbones.costs import peak_bytes
from autometa.core.machine import free_bytes, starts_cold

LARGEST_BATCH = {"cpu": 64}
LARGEST_GPU_BATCH = 256
"""Images that are embedded at a time, at most: GPUs are idle with fewer."""
FEW = 4
"""Engines in half precision pad a batch to a size of so many times another one: 1, 4, 16, 64, 256."""
BYTES_PER_PIXEL = 400
"""Working memory of a forward pass per input pixel, on the host, where engines take several times what their tensors
do: a generous figure for the catalogue's networks."""
MEMORY_SHARE = 1 / 3
"""Of the memory that is free, for a forward pass."""
UNKNOWN_BYTES = 2**31
"""Free memory of the host that is taken for granted where nothing says how much there is."""
LEAST_RATIO, MOST_RATIO = 0.02, 4.0
"""Bounds of what a real pass corrects a prediction by, which is generous for a network that was not counted: one that
is further off has seen something else."""
HALF = 0.5
"""Bytes of a tensor in half precision, as a share of those in float32."""
MIB = 2**20

Images = NDArray[np.uint8] | torch.Tensor


def batch_size(device: str, px: int, host_bytes: int, image_bytes: float) -> int:
    """How many images of this size to embed at a time, with so much free memory on the host. A device with memory of
    its own goes by that, and by the working memory that an image takes there; its batches have a size that half
    precision need not pad."""
    own_bytes = free_bytes(device)
    if own_bytes is None:
        generous = BYTES_PER_PIXEL * px**2
        return int(
            np.clip(MEMORY_SHARE * host_bytes // generous, 1, LARGEST_BATCH.get(device, LARGEST_GPU_BATCH))
        )
    size = LARGEST_GPU_BATCH
    while size > 1 and size * image_bytes > MEMORY_SHARE * own_bytes:
        size //= FEW
    return size


def fill_batch(images: Images, device: str, batch: int) -> Images:
    """Images to measure speed with: on a device that starts cold repeated to fill a batch of this size, as its speed
    is that of full batches."""
    if not starts_cold(device) or not len(images):
        return images
    places = np.arange(max(batch, len(images))) % len(images)
    return images[places]


def to_device(images: Images, device: str) -> torch.Tensor:
    """The images on a device. They go to an NVIDIA GPU by way of memory that the system keeps in place, from which
    the GPU reads by itself."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements=("C", "W")))  # as PyTorch wants them
    if device == "cuda" and not images.is_cuda:
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def to_host(features: torch.Tensor, device: str) -> torch.Tensor:
    """A copy of features on the CPU, from a device. From an NVIDIA GPU it is page-locked: not to be kept, but to be
    copied again."""
    if device != "cuda":
        return features.to("cpu", copy=True)
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    host.copy_(features, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return host


@dataclass
class PassMemory:
    """Working memory on a GPU of passes of a network: counted beforehand for tensors in float32 (`costs.json`), and
    corrected by a real pass."""

    spec: BackboneSpec
    _ratio: float = field(default=1.0, init=False)

    def image_bytes(self, px: int, precision: str) -> float:
        """For each image of a pass."""
        share = HALF if precision == "half" else 1.0
        return self._ratio * share * peak_bytes(self.spec, px)

    def correct(self, images: int, px: int, precision: str, measured_bytes: int) -> str:
        """A pass of so many images took so much; what was predicted and what it took, for people."""
        predicted = images * self.image_bytes(px, precision)
        ratio = self._ratio * measured_bytes / predicted
        self._ratio = min(max(ratio, LEAST_RATIO), MOST_RATIO)
        return (
            f"memory of {images} images of {px} px: {predicted / MIB:.1f} MiB predicted, "
            f"{measured_bytes / MIB:.1f} MiB measured"
        )
