"""Plain PyTorch in float32, with channels last."""

from __future__ import annotations

import os

import torch

from autometa.backbones.network import PixelNetwork
from autometa.core.machine import Machine


class Eager:
    """The network itself."""

    def __init__(self, network: PixelNetwork, device: str) -> None:
        cores = Machine.detect().cores
        # torch starts one thread per physical core, whatever a container may use; one per logical core is faster.
        # OMP_NUM_THREADS is respected
        if device == "cpu" and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() != cores:
            torch.set_num_threads(cores)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        batch = images.to(self._device).contiguous(memory_format=torch.channels_last)
        output: torch.Tensor = self._network(batch)
        return output.cpu()


def build_eager(network: PixelNetwork, px: int, device: str) -> Eager:
    """In float32, for any size."""
    return Eager(network, device)
