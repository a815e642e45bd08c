"""A network as a chain of stages, so that the first ones can be frozen and run once per image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from autometa.core.errors import ConfigError


def list_stages(model: nn.Module) -> list[nn.Module]:
    """The stages whose composition takes normalised pixels to the last feature map [n, c, h, w], stem first.

    ConfigError for an architecture that is no such chain: it can be frozen or trained as a whole.
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
        f"{type(model).__name__} can not be cut into stages (EfficientNets, MobileNetV2, ResNets and vision "
        "transformers can): "
        "set trainable to 0 or choose another backbone"
    )


def split(model: nn.Module, trainable: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Trunk and tail of a model: the last `trainable` stages are the tail. ConfigError for fewer than one or
    more than there are."""
    stages = list_stages(model)
    if not 1 <= trainable <= len(stages):
        raise ConfigError(f"trainable = {trainable}; {type(model).__name__} has 1 to {len(stages)} stages")
    cut = len(stages) - trainable
    return nn.Sequential(*stages[:cut]), nn.Sequential(*stages[cut:])


class TokenStem(nn.Module):
    """Pixels → tokens [n, t, c] of a vision transformer, with their positions, before its first block."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = (model,)  # not a submodule: its blocks are stages of their own
        self.patch_embed, self.norm_pre = model.patch_embed, model.norm_pre
        for name in ("pos_embed", "cls_token", "reg_token"):
            setattr(self, name, getattr(model, name, None))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels [n, 3, h, w] → tokens [n, t, c]."""
        model: Any = self._model[0]
        tokens: torch.Tensor = model.norm_pre(model._pos_embed(model.patch_embed(pixels)))
        return tokens


class TokenMaps(nn.Module):
    """Tokens [n, t, c] of a square image → the final norm → a feature map [n, c, h, w], without the `prefix`
    tokens that stand for no patch."""

    def __init__(self, norm: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.prefix = norm, prefix

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[n, t, c] → [n, c, h, w]."""
        patches = self.norm(tokens)[:, self.prefix :].transpose(1, 2)
        side = math.isqrt(patches.shape[-1])
        maps: torch.Tensor = patches.unflatten(-1, (side, side))
        return maps


class Normalise(nn.Module):
    """uint8 pixels → what a pretrained network takes."""

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
