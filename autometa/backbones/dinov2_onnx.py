"""Reading DINOv2-S weights for timm from an ONNX file that was exported from the Hugging Face implementation.

In such a file, biases, norms and layer scales keep their names, but the matrices of linear layers have none. The
graph tells which is which: a matrix belongs to the bias that is added to its product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from autometa.core.errors import WeightsError

PATCH_TOKENS = 37 * 37
"""Of an image of 518 px with patches of 14 px."""
PREFIX = "backbone."


def read_dinov2(file: Path, depth: int) -> dict[str, torch.Tensor]:
    """State dict of `vit_small_patch14_dinov2` of timm (at 518 px) with its first `depth` blocks.

    WeightsError if `onnx` is not installed, or if the file does not have the expected tensors.
    """
    try:
        import onnx  # noqa: PLC0415 - only needed for DINOv2
    except ImportError as error:
        raise WeightsError("DINOv2 weights need the package `onnx`; run: pip install onnx") from error
    graph = onnx.load(str(file)).graph
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    linear = _find_linear_weights(graph, arrays)
    try:
        state = _read_embeddings(arrays)
        for block in range(depth):
            state |= _read_block(block, arrays, linear)
        for part in ("weight", "bias"):
            state[f"norm.{part}"] = arrays[f"{PREFIX}layernorm.{part}"]
    except KeyError as error:
        raise WeightsError(
            f"{file.name}: no tensor {error}; install another version of its package"
        ) from error
    return {name: torch.from_numpy(np.array(a, dtype=np.float32)) for name, a in state.items()}


def _find_linear_weights(graph: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """For the name of each bias, the matrix [out, in] to whose product it is added."""
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    found = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (node.input, reversed(node.input)):
            if bias in arrays and product in products:
                matrices = [arrays[i] for i in products[product].input if i in arrays]
                found[bias] = matrices[0].T
    return found


def _read_embeddings(arrays: dict[str, Any]) -> dict[str, Any]:
    """The part of the state dict before the blocks. KeyError for a missing tensor."""
    anonymous = [a for name, a in arrays.items() if name.startswith("onnx::")]
    width = arrays[f"{PREFIX}embeddings.cls_token"].shape[-1]
    positions = {n: [a for a in anonymous if a.shape == (1, n, width)] for n in (1, PATCH_TOKENS)}
    if any(len(found) != 1 for found in positions.values()):
        raise KeyError("position embedding")
    projection = f"{PREFIX}embeddings.patch_embeddings.projection"
    return {
        "cls_token": arrays[f"{PREFIX}embeddings.cls_token"],
        "pos_embed": np.concatenate([positions[1][0], positions[PATCH_TOKENS][0]], axis=1),
        "patch_embed.proj.weight": arrays[f"{projection}.weight"],
        "patch_embed.proj.bias": arrays[f"{projection}.bias"],
    }


def _read_block(number: int, arrays: dict[str, Any], linear: dict[str, Any]) -> dict[str, Any]:
    """The part of the state dict of one block. KeyError for a missing tensor."""
    theirs, ours = f"{PREFIX}encoder.layer.{number}.", f"blocks.{number}."
    attention = [f"{theirs}attention.attention.{part}.bias" for part in ("query", "key", "value")]
    state = {
        f"{ours}attn.qkv.weight": np.concatenate([linear[bias] for bias in attention]),
        f"{ours}attn.qkv.bias": np.concatenate([arrays[bias] for bias in attention]),
        f"{ours}ls1.gamma": arrays[f"{theirs}layer_scale1.lambda1"],
        f"{ours}ls2.gamma": arrays[f"{theirs}layer_scale2.lambda1"],
    }
    for name in ("norm1", "norm2"):
        state |= {f"{ours}{name}.{part}": arrays[f"{theirs}{name}.{part}"] for part in ("weight", "bias")}
    for name, source in (("attn.proj", "attention.output.dense"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
        state[f"{ours}{name}.weight"] = linear[f"{theirs}{source}.bias"]
        state[f"{ours}{name}.bias"] = arrays[f"{theirs}{source}.bias"]
    return state
