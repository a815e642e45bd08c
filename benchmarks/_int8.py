"""A network with weights and activations of 8 bits, by post-training quantisation: what the engines are compared
with. Not an engine of autometa, see docs/backbones.md."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch

from autometa.backbones import Backbone
from autometa.backbones.engines.onnx_export import to_onnx
from autometa.core.machine import Machine

CHUNK = 16
INSTALLED = all(importlib.util.find_spec(package) is not None for package in ("nncf", "openvino", "onnx"))


class Int8:
    """A network quantised by NNCF for OpenVINO: each channel of a weight by itself, activations by the ranges that
    they have on calibration images uint8 [n, 3, px, px]; the rest in bfloat16 where the CPU has it."""

    def __init__(self, backbone: Backbone, px: int, calibration: torch.Tensor) -> None:
        openvino, nncf = (importlib.import_module(name) for name in ("openvino", "nncf"))
        core: Any = openvino.Core()
        model = core.read_model(to_onnx(backbone.network, px))
        transformer = backbone.spec.patch_px > 1
        quantised = nncf.quantize(
            model,
            nncf.Dataset([image[None].numpy() for image in calibration]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if has_bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": Machine.detect().cores,
        }
        self._request: Any = core.compile_model(quantised, "CPU", options).create_infer_request()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        chunks = images.contiguous().split(CHUNK)
        return torch.cat(
            [torch.from_numpy(self._request.infer({0: each.numpy()})[0].copy()) for each in chunks]
        )
