"""The engine OpenVINO."""

from __future__ import annotations

import warnings
from functools import partial
from threading import Lock
from typing import Any

import torch

from autometa.backbones.engines.base import split_into_chunks
from autometa.backbones.engines.onnx_export import to_onnx
from autometa.backbones.network import PixelNetwork
from autometa.core.machine import Machine

CHUNK = 16
"""Faster than 32 or 64 on the CPUs we measured: the activations stay in the caches of the CPU."""


class OpenVino:
    """A model compiled for the CPU with all cores that the process may use, for any number of images. In `bf16`, sums
    are rounded too. RuntimeError where the CPU does not compute in this precision: it would be imitated, slowly."""

    def __init__(self, network: PixelNetwork, px: int, device: str, *, precision: str = "f32") -> None:
        import openvino  # noqa: PLC0415 - an optional package

        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeError("this CPU does not compute in bfloat16")
        compiled = core.compile_model(
            _read_model(openvino, core, network, px),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": Machine.detect().cores,
            },
        )
        self._request: Any = compiled.create_infer_request()
        self._in_use = Lock()  # the request serves one thread at a time

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        outputs = []
        for chunk in split_into_chunks(images, CHUNK):
            with self._in_use:
                result = self._request.infer({0: chunk.contiguous().numpy()}, share_inputs=True)
                outputs.append(torch.from_numpy(result[0].copy()))
        return torch.cat(outputs)


def _read_model(openvino: Any, core: Any, network: PixelNetwork, px: int) -> Any:
    """Read the network through ONNX, which takes half the time of the converter of OpenVINO, or else through that."""
    try:
        return core.read_model(to_onnx(network, px))
    except Exception:  # noqa: BLE001 - exporters raise anything; the converter may still work
        example = torch.zeros(2, 3, px, px, dtype=torch.uint8)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return openvino.convert_model(
                network.fit_to_size(px), example_input=example, input=[(-1, 3, px, px)]
            )


build_openvino_bfloat16 = partial(OpenVino, precision="bf16")
