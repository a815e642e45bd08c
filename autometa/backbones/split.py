"""Splitting a network into a frozen trunk, which runs once per image, and a tail that can be trained."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import torch
from torch import nn

from autometa.core.errors import ConfigError

TOKENS = ("pos_embed", "cls_token", "reg_token")
"""Parameters of a vision transformer before its first block that belong to no layer."""


def list_stages(model: nn.Module) -> list[nn.Module]:
    """The stages of a network, stem first, which map normalised pixels to the last feature map [n, c, h, w].

    ConfigError for an unknown architecture: it can only be frozen or trained as a whole.
    """
    parts: Any = model
    if all(hasattr(model, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")):
        stem, head = nn.Sequential(parts.conv_stem, parts.bn1), nn.Sequential(parts.conv_head, parts.bn2)
        return [stem, *parts.blocks, head]
    if all(hasattr(model, name) for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer4")):
        stem = nn.Sequential(parts.conv1, parts.bn1, parts.act1, parts.maxpool)
        return [stem, parts.layer1, parts.layer2, parts.layer3, parts.layer4]
    if all(hasattr(model, name) for name in ("patch_embed", "blocks", "norm", "num_prefix_tokens")):
        return [TokenStem(model), *parts.blocks, TokenMaps(parts.norm, parts.num_prefix_tokens)]
    raise ConfigError(
        f"{type(model).__name__} cannot be split into stages: set trainable to 0, or choose an EfficientNet, "
        "MobileNetV2, ResNet or vision transformer"
    )


def split(model: nn.Module, trainable: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Trunk and tail of a model; the tail has the last `trainable` stages. ConfigError if the model does not have
    that many stages, or fewer than one is asked for."""
    stages = list_stages(model)
    if not 1 <= trainable <= len(stages):
        raise ConfigError(f"trainable = {trainable}; {type(model).__name__} has 1 to {len(stages)} stages")
    cut = len(stages) - trainable
    return nn.Sequential(*stages[:cut]), nn.Sequential(*stages[cut:])


class TokenStem(nn.Module):
    """The part of a vision transformer before its first block: pixels → tokens with position embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple, so that it is no submodule: its blocks are separate stages
        self.patch_embed: Any = model.patch_embed
        self.norm_pre: Any = model.norm_pre
        for name in TOKENS:
            setattr(self, name, getattr(model, name, None))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels [n, 3, h, w] → tokens [n, t, c]."""
        model: Any = copy(self._model[0])
        own = {name: getattr(self, name) for name in TOKENS if getattr(self, name) is not None}
        model._parameters = model._parameters | own  # others than the model's where a learner adapts them
        tokens: torch.Tensor = self.norm_pre(model._pos_embed(self.patch_embed(pixels)))
        return tokens


class TokenMaps(nn.Module):
    """The part of a vision transformer after its last block: the final norm, and patch tokens as a square map.

    The first `prefix` tokens, such as the class token, are dropped.
    """

    def __init__(self, norm: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.prefix = norm, prefix

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [n, t, c] → feature map [n, c, h, w] with h = w."""
        patches = self.norm(tokens)[:, self.prefix :].transpose(1, 2)
        side = math.isqrt(patches.shape[-1])
        maps: torch.Tensor = patches.unflatten(-1, (side, side))
        return maps


class Normalise(nn.Module):
    """uint8 pixels → normalised pixels, the input of a pretrained network."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        scale = 1 / (torch.tensor(std) * 255)
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) * 255 * scale).view(1, -1, 1, 1))

    scale: torch.Tensor
    shift: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, h, w] → float32 [n, 3, h, w]."""
        return images.float() * self.scale - self.shift
