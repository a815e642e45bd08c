"""A network as ONNX bytes, which both ONNX Runtime and OpenVINO read."""

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
    """ONNX bytes of the network at one size: input `images` uint8 [n, 3, px, px] with free n.

    The latest is kept, so that a second engine of the same race costs no second export; `cache_clear` frees
    it. Raises what torch raises.
    """
    file = io.BytesIO()
    example = torch.zeros(2, 3, px, px, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the tracing exporter, which needs no further package
        torch.onnx.export(
            network.at(px),
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=[INPUT],
            dynamic_axes={INPUT: {0: "n"}},
            opset_version=OPSET,
        )
    return file.getvalue()
