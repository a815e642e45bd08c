"""torch.compile, which takes 5 to 30 s to build, so that it only pays off in long runs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from autometa.backbones.engines.base import split_into_chunks
from autometa.backbones.network import PixelNetwork

CHUNK = {"cpu": 16, "cuda": 256}


class Compiled:
    """The network, compiled for chunks of one size. The last chunk is padded, since another size would need another
    compilation."""

    def __init__(self, network: PixelNetwork, px: int, device: str) -> None:
        self._device, self._chunk = device, CHUNK.get(device, 16)
        self._run: Any = torch.compile(
            network.fit_to_size(px).to(device),
            dynamic=False,
            options={"freezing": True},
        )
        self(torch.zeros(1, 3, px, px, dtype=torch.uint8))

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        outputs = []
        for chunk in split_into_chunks(images, self._chunk):
            padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, self._chunk - len(chunk)))
            batch = padded.to(self._device).contiguous(memory_format=torch.channels_last)
            outputs.append(self._run(batch)[: len(chunk)].float().cpu())
        return torch.cat(outputs)
