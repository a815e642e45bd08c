"""The network that engines run: a frozen model with its preprocessing inside and several layers as one output."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.data.config import resolve_data_config
from torch import nn

from autometa.backbones.split import Normalise
from autometa.backbones.view import GENERALISED, LARGEST, LAYERS, STAGES

LARGEST_BYTE = 255.0
POWER = 3
"""Of generalised means."""
DEPTHS = {"stage3": 3 / 4, "stage4": 1.0, "two_thirds": 2 / 3, "five_sixths": 5 / 6}
"""Shares of a transformer's blocks after which its layers are taken."""
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
    """uint8 pixels [n, 3, px, px] → some layers of the model, float32 [n, sum of widths], from one pass.

    `layers` are the last one and those of `wanted` that the model has, in the order of `LAYERS`. A model without
    `forward_intermediates` has its last layer only.
    """

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, wanted: Collection[str] = STAGES
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(preprocessing.mean, preprocessing.std)
        self.taps = find_taps(model)
        tokens = find_token_layers(model)
        self.layers = tuple(
            layer
            for layer in LAYERS
            if layer == "last" or (layer in wanted and (layer in tokens or tap_of(layer) in self.taps))
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """All layers, side by side."""
        return torch.cat(self.blocks(images), dim=1)

    def blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The layers of `layers`, each float32 [n, width]."""
        pixels = self.normalise(images)
        model: Any = self.model
        if not self.taps:
            return [model(pixels).float()]
        indices = sorted({self.taps[tap_of(layer)] for layer in self.layers if tap_of(layer) in self.taps})
        final, maps = model.forward_intermediates(pixels, indices=indices)
        map_of_index = dict(zip(indices, maps, strict=True))
        return [self._pool(layer, final, map_of_index).float() for layer in self.layers]

    def _pool(self, layer: str, final: torch.Tensor, maps: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """One layer [n, width], of what the model gives after its last norm and of feature maps [n, c, h, w]."""
        model: Any = self.model
        if layer == "last":
            pooled: torch.Tensor = model.forward_head(final)
            return pooled
        if layer == "class":
            return final[:, 0]
        if layer == "patches":
            return final[:, model.num_prefix_tokens :].mean(1)
        pool = POOLS[layer.removeprefix(tap_of(layer))]
        return pool(maps[self.taps[tap_of(layer)]])

    def fit_to_size(self, px: int) -> PixelNetwork:
        """This network with its position embeddings resampled to images of this size, if it has any.

        An exported graph then does not resample them for every batch. All other weights are shared with this network.
        """
        if not hasattr(self.model, "set_input_size") or not hasattr(self.model, "pos_embed"):
            return self
        fitted = copy_sharing_tensors(self)
        fitted.model.set_input_size(img_size=px)  # type: ignore[operator]
        return fitted


def pool_average(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps [n, c, h, w] → their means [n, c]."""
    return maps.mean((2, 3))


def pool_generalised(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps [n, c, h, w] → their generalised means [n, c] (GeM, Radenović et al. 2019), which are nearer to
    the largest values than means are. It is for activations that are not negative: negative ones count as zero. A
    signed cube would keep them; but where they cancel out, its root turns rounding into differences of engines."""
    powers = maps.float().clamp(min=0).pow(POWER)  # half precision has no room for a cube of 41
    return powers.mean((2, 3)).pow(1 / POWER).to(maps.dtype)


def pool_largest(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps [n, c, h, w] → their largest values [n, c]."""
    return maps.amax((2, 3))


POOLS = {"": pool_average, GENERALISED: pool_generalised, LARGEST: pool_largest}
"""Ways to pool a feature map, by the ending of the layers that they make."""


def tap_of(layer: str) -> str:
    """The feature map that a layer pools."""
    return layer.removesuffix(GENERALISED).removesuffix(LARGEST)


def find_taps(model: nn.Module) -> dict[str, int]:
    """Indices for `forward_intermediates` of feature maps by name; empty if the model has none.

    Of a network with stages: the last maps of the last two. In a transformer, all blocks have the same resolution:
    the maps are those after shares of its depth.
    """
    stages = getattr(model, "feature_info", None)
    if not isinstance(stages, list) or len(stages) < 2 or not hasattr(model, "forward_intermediates"):
        return {}
    if not _is_transformer(stages):
        return {"stage3": len(stages) - 2, "stage4": len(stages) - 1}
    depth = len(model.blocks)  # type: ignore[arg-type]
    return {name: max(round(share * depth), 1) - 1 for name, share in DEPTHS.items()}


def find_token_layers(model: nn.Module) -> tuple[str, ...]:
    """Which layers are made of the tokens after the last norm: of a transformer the mean of its patches, and its
    class token if it has one."""
    stages = getattr(model, "feature_info", None)
    if not find_taps(model) or not _is_transformer(stages):
        return ()
    return ("class", "patches") if getattr(model, "cls_token", None) is not None else ("patches",)


def _is_transformer(stages: Any) -> bool:
    """Whether all feature maps have the same resolution."""
    return len({stage["reduction"] for stage in stages}) == 1


def copy_sharing_tensors(module: AnyModule) -> AnyModule:
    """A copy of a module that shares all parameters and buffers, but can hold other state."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
