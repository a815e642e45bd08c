"""Exporting a network as ONNX, which both ONNX Runtime and OpenVINO read."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache

import torch

from autometa.backbones.network import PixelNetwork

INPUT = "images"
OPSET = 17


@lru_cache(maxsize=1)
def to_onnx(network: PixelNetwork, px: int) -> bytes:
    """The network at one size as ONNX bytes, with the input `images` uint8 [n, 3, px, px] for any n.

    The latest result is cached, so that a second engine of the same race needs no second export; `cache_clear` frees
    it. Raises what torch raises.
    """
    file = io.BytesIO()
    example = torch.zeros(2, 3, px, px, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # it warns that the tracing exporter is old, but the new one needs another package
        torch.onnx.export(
            network.fit_to_size(px),
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=[INPUT],
            dynamic_axes={INPUT: {0: "n"}},
            opset_version=OPSET,
        )
    return file.getvalue()
