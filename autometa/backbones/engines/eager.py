"""Plain PyTorch with channels last; on GPUs in half precision too."""

from __future__ import annotations

import os
from functools import partial

import torch

from autometa.backbones.network import PixelNetwork
from autometa.core.budget import Machine


class Eager:
    """The network itself. `dtype` is the precision to compute in (None: float32)."""

    def __init__(self, network: PixelNetwork, device: str, dtype: torch.dtype | None = None) -> None:
        cores = Machine.detect().cores
        # torch starts one thread per physical core, whatever a container may use; one per logical core is faster.
        # OMP_NUM_THREADS is respected
        if device == "cpu" and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() != cores:
            torch.set_num_threads(cores)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._device, self._dtype = device, dtype

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        batch = images.to(self._device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device, self._dtype, enabled=self._dtype is not None):
            output: torch.Tensor = self._network(batch)
        return output.float().cpu()


def build_eager(network: PixelNetwork, px: int, device: str) -> Eager:
    """In float32, for any size."""
    return Eager(network, device)


def _build_half(network: PixelNetwork, px: int, device: str, dtype: torch.dtype) -> Eager:
    """In half precision, for one size."""
    return Eager(network.fit_to_size(px), device, dtype)


build_float16 = partial(_build_half, dtype=torch.float16)
build_bfloat16 = partial(_build_half, dtype=torch.bfloat16)
