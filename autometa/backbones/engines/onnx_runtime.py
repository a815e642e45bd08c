"""The engine ONNX Runtime."""

from __future__ import annotations

from typing import Any

import torch

from autometa.backbones.engines.base import split_into_chunks
from autometa.backbones.engines.onnx_export import INPUT, to_onnx
from autometa.backbones.network import PixelNetwork
from autometa.core.machine import Machine

CHUNK = 8
"""As fast as 32. A session never frees the memory of its largest chunk, and there is a session for every size."""


class OnnxRuntime:
    """A session on the CPU with all cores that the process may use."""

    def __init__(self, network: PixelNetwork, px: int, device: str) -> None:
        import onnxruntime  # noqa: PLC0415 - an optional package

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = Machine.detect().cores
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            to_onnx(network, px), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        outputs = [
            torch.from_numpy(self._session.run(None, {INPUT: chunk.contiguous().numpy()})[0])
            for chunk in split_into_chunks(images, CHUNK)
        ]
        return torch.cat(outputs)
