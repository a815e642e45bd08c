"""The network that engines run: a frozen model with its preprocessing inside and several layers as one output."""

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

LARGEST_BYTE = 255.0
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its images: mean and standard deviation per channel, of pixels in [0, 1], and how to
    resize."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    @classmethod
    def of(cls, model: nn.Module) -> Preprocessing:
        """As timm records it for this model; bilinear if timm names an interpolation that torch does not have."""
        config = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
        known = config["interpolation"] in ("bilinear", "bicubic")
        interpolation = config["interpolation"] if known else "bilinear"
        return cls(tuple(config["mean"]), tuple(config["std"]), interpolation)

    def resize(self, images: torch.Tensor, px: int) -> torch.Tensor:
        """uint8 [n, 3, h, w] → uint8 [n, 3, px, px], with antialiasing, as Pillow does it.

        On the CPU it computes with bytes, 2 to 5 times faster than with floats. GPUs have no kernel for bytes, so it
        computes with floats there, and single pixels can differ.
        """
        if images.shape[-2:] == (px, px):
            return images
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
            return F.interpolate(images, (px, px), mode=self.interpolation, antialias=True)
        floats = F.interpolate(images.float(), (px, px), mode=self.interpolation, antialias=True)
        return floats.round_().clamp_(0, LARGEST_BYTE).to(torch.uint8)


class PixelNetwork(nn.Module):
    """uint8 pixels [n, 3, px, px] → the layers of `LAYERS` that the model has, float32 [n, sum of widths].

    A model without `forward_intermediates` has its last layer only.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(preprocessing.mean, preprocessing.std)
        self.taps = _find_taps(model)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """All layers, side by side."""
        return torch.cat(self.blocks(images), dim=1)

    def blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The layers `last`, `stage3` and `stage4`, or `last` alone, each float32 [n, width]."""
        pixels = self.normalise(images)
        model: Any = self.model
        if not self.taps:
            return [model(pixels).float()]
        final, maps = model.forward_intermediates(pixels, indices=self.taps)
        return [model.forward_head(final).float(), *(m.mean((2, 3)).float() for m in maps)]

    def fit_to_size(self, px: int) -> PixelNetwork:
        """This network with its position embeddings resampled to images of this size, if it has any.

        An exported graph then does not resample them for every batch. All other weights are shared with this network.
        """
        if not hasattr(self.model, "set_input_size") or not hasattr(self.model, "pos_embed"):
            return self
        fitted = copy_sharing_tensors(self)
        fitted.model.set_input_size(img_size=px)  # type: ignore[operator]
        return fitted


def _find_taps(model: nn.Module) -> list[int]:
    """Indices for `forward_intermediates` of the last feature maps of stages 3 and 4; empty if the model has none.

    In a transformer, all blocks have the same resolution: stage 3 ends at three quarters of its depth.
    """
    stages = getattr(model, "feature_info", None)
    if not isinstance(stages, list) or len(stages) < 2 or not hasattr(model, "forward_intermediates"):
        return []
    if len({stage["reduction"] for stage in stages}) > 1:
        return [len(stages) - 2, len(stages) - 1]
    depth = len(model.blocks)  # type: ignore[arg-type]
    return [round(0.75 * depth) - 1, depth - 1]


def copy_sharing_tensors(module: AnyModule) -> AnyModule:
    """A copy of a module that shares all parameters and buffers, but can hold other state."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
