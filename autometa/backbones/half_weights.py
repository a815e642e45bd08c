"""Weights of saved networks in half precision, where the network embeds alike with them: half the bytes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.func import functional_call

from autometa.backbones.build import Backbone
from autometa.backbones.engines import split_layers
from autometa.backbones.network import LARGEST_BYTE
from autometa.core.files import Tensors

LEAST_COSINE = 0.9999
"""Of each layer of each image, to what the network gives with its own weights."""
CHECK_IMAGES, CHECK_GRID, CHECK_PX = 8, 6, 96
"""Images of coloured clouds to check with, how many colours they have in each direction, and their size."""
MATRIX = 2
"""Dimensions from which on tensors are halved: biases and norms are few, and may be small."""


def halve(state: Tensors) -> dict[str, torch.Tensor]:
    """The same tensors, those of weights that are float32 as float16."""
    return {
        name: tensor.half() if tensor.dtype == torch.float32 and tensor.ndim >= MATRIX else tensor
        for name, tensor in state.items()
    }


def restore(state: Tensors) -> dict[str, torch.Tensor]:
    """Tensors that were read, float16 as float32: networks are in full precision in memory."""
    return {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()
    }


def is_rounded(state: Tensors) -> bool:
    """Whether nothing is lost when the weights are halved."""
    return all(torch.equal(tensor, _rounded(tensor)) for tensor in state.values())


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    """What `restore` gives of it after `halve`."""
    return restore(halve({"": tensor}))[""]


def round_weights(backbone: Backbone) -> None:
    """Round the weights of a network to half precision, where it embeds alike with them: then what is saved is what
    was used."""
    state = backbone.model.state_dict()
    if not is_rounded(state) and embeds_alike(backbone):
        backbone.model.load_state_dict({name: _rounded(tensor) for name, tensor in state.items()})


@torch.inference_mode()
def embeds_alike(backbone: Backbone) -> bool:
    """Whether a network gives the same directions with weights in half precision, for small smooth images, which need
    no data. False where a weight is too large for half precision, too."""
    network, widths = backbone.network, list(backbone.widths.values())
    images = draw_clouds(backbone.input_px(CHECK_PX)).to(backbone.device)
    expected = network(images)
    rounded = {f"model.{name}": _rounded(tensor) for name, tensor in network.model.state_dict().items()}
    found: torch.Tensor = functional_call(network, rounded, (images,))
    if not bool(torch.isfinite(found).all()):
        return False
    pairs = zip(split_layers(expected, widths), split_layers(found, widths), strict=True)
    return all(bool((F.cosine_similarity(*pair) >= LEAST_COSINE).all()) for pair in pairs)


def draw_clouds(px: int) -> torch.Tensor:
    """Images uint8 [n, 3, px, px] with large spots of random colours, always the same."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(CHECK_IMAGES, 3, CHECK_GRID, CHECK_GRID, generator=generator)
    smooth = F.interpolate(colours, (px, px), mode="bicubic", align_corners=False)
    return (smooth.clamp(0, 1) * LARGEST_BYTE).to(torch.uint8)
