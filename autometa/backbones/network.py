"""A frozen network with its preprocessing inside, and with several layers as one output: what engines run."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.data.config import resolve_data_config
from torch import nn

from autometa.backbones.split import Normalise

MILD_RANGE = 255.0
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its images: mean and standard deviation per channel, of pixels in [0, 1],
    and how they are resized."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    @classmethod
    def of(cls, model: nn.Module) -> Preprocessing:
        """As timm records it for this model."""
        config = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
        known = config["interpolation"] in ("bilinear", "bicubic")
        interpolation = config["interpolation"] if known else "bilinear"
        return cls(tuple(config["mean"]), tuple(config["std"]), interpolation)

    def resize(self, images: torch.Tensor, px: int) -> torch.Tensor:
        """uint8 [n, 3, h, w] → uint8 [n, 3, px, px], smoothed where it shrinks, as Pillow does it.

        In bytes on the CPU (2 to 5 times faster than in floats); in floats on a GPU, which has no such
        kernel, so that single pixels may differ there.
        """
        if images.shape[-2:] == (px, px):
            return images
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
            return F.interpolate(images, (px, px), mode=self.interpolation, antialias=True)
        floats = F.interpolate(images.float(), (px, px), mode=self.interpolation, antialias=True)
        return floats.round_().clamp_(0, MILD_RANGE).to(torch.uint8)


class PixelNetwork(nn.Module):
    """uint8 pixels [n, 3, px, px] → the layers of `LAYERS` that the model offers, float32 [n, sum of widths].

    The embeddings of a model that has no `forward_intermediates` consist of its last layer only.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(preprocessing.mean, preprocessing.std)
        self.taps = _taps(model)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """All layers of these images, side by side."""
        return torch.cat(self.blocks(images), dim=1)

    def blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The layers `last`, `stage3`, `stage4` (or the first alone), each [n, width]."""
        pixels = self.normalise(images)
        model: Any = self.model
        if not self.taps:
            return [model(pixels).float()]
        final, maps = model.forward_intermediates(pixels, indices=self.taps)
        return [model.forward_head(final).float(), *(m.mean((2, 3)).float() for m in maps)]

    def at(self, px: int) -> PixelNetwork:
        """This network with its position embeddings, if it has any, fitted to images of this size, so that
        an exported graph need not resample them; all other weights are shared."""
        if not hasattr(self.model, "set_input_size") or not hasattr(self.model, "pos_embed"):
            return self
        fitted = copy_sharing_tensors(self)
        fitted.model.set_input_size(img_size=px)  # type: ignore[operator]
        return fitted


def _taps(model: nn.Module) -> list[int]:
    """Indices for `forward_intermediates` of the feature maps that count as the last two stages."""
    stages = getattr(model, "feature_info", None)
    if not isinstance(stages, list) or len(stages) < 2 or not hasattr(model, "forward_intermediates"):
        return []
    if len({stage["reduction"] for stage in stages}) > 1:
        return [len(stages) - 2, len(stages) - 1]
    depth = len(model.blocks)  # type: ignore[arg-type]
    return [round(0.75 * depth) - 1, depth - 1]


def copy_sharing_tensors(module: AnyModule) -> AnyModule:
    """A copy with modules of its own, which may hold other state, over the same parameters and buffers."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
