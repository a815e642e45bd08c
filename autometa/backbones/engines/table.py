"""The table of engines. A new engine is one file and one row."""

from __future__ import annotations

from autometa.backbones.batches import LARGEST_GPU_BATCH
from autometa.backbones.engines.base import EngineSpec
from autometa.backbones.engines.compiled import Compiled
from autometa.backbones.engines.eager import build_eager
from autometa.backbones.engines.half import HalfGraph, build_bfloat16, build_float16
from autometa.backbones.engines.onnx_runtime import OnnxRuntime
from autometa.backbones.engines.openvino import OpenVino, build_openvino_bfloat16

EAGER = "eager"
LIBRARY_BYTES, COMPILER_BYTES = 25 * 10**6, 300 * 10**6
"""Memory of the libraries of an engine, and of PyTorch's compiler, measured."""

ENGINES: dict[str, EngineSpec] = {
    spec.name: spec
    for spec in (
        EngineSpec(EAGER, build_eager, build_s=0.0, speedup=1.0, devices=("cpu", "cuda", "mps")),
        EngineSpec(
            "graph-float16",
            HalfGraph,
            0.5,
            4.0,
            devices=("cuda",),
            precision="half",
            least_batch=LARGEST_GPU_BATCH,
        ),
        EngineSpec("eager-float16", build_float16, 0.1, 2.0, devices=("cuda", "mps"), precision="half"),
        EngineSpec("eager-bfloat16", build_bfloat16, 0.1, 2.0, devices=("cuda",), precision="half"),
        EngineSpec("openvino", OpenVino, 1.2, 6.0, ("onnx", "openvino"), library_bytes=LIBRARY_BYTES),
        EngineSpec(
            "onnxruntime", OnnxRuntime, 1.0, 4.0, ("onnx", "onnxruntime"), library_bytes=LIBRARY_BYTES
        ),
        EngineSpec(
            "openvino-bfloat16",
            build_openvino_bfloat16,
            build_s=1.2,
            speedup=12.0,
            packages=("onnx", "openvino"),
            precision="bfloat16",
            instead="openvino",
            library_bytes=LIBRARY_BYTES,
        ),
        EngineSpec("compiled", Compiled, 30.0, 4.0, devices=("cpu", "cuda"), library_bytes=COMPILER_BYTES),
    )
}
"""In the order of the race: the reference first, the one that takes longest to build last."""
