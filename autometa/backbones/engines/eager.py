"""PyTorch as it is, channels last; on GPUs also in half precision."""

from __future__ import annotations

import os
from functools import partial

import torch

from autometa.backbones.network import PixelNetwork
from autometa.core.budget import Machine


class Eager:
    """The network itself. `dtype`: the precision to compute in (None: float32)."""

    def __init__(self, network: PixelNetwork, device: str, dtype: torch.dtype | None = None) -> None:
        cores = Machine.detect().cores
        # torch counts two hardware threads for one; who says otherwise in the environment is heeded
        if device == "cpu" and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() < cores:
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
    """Float32, at any size."""
    return Eager(network, device)


def _build_half(network: PixelNetwork, px: int, device: str, dtype: torch.dtype) -> Eager:
    return Eager(network.at(px), device, dtype)


build_float16 = partial(_build_half, dtype=torch.float16)
build_bfloat16 = partial(_build_half, dtype=torch.bfloat16)
