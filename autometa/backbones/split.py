"""A network as a chain of stages, so that the first ones can be frozen and run once per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autometa.errors import ConfigError


def stages_of(model: nn.Module) -> list[nn.Module]:
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
    raise ConfigError(
        f"{type(model).__name__} can not be cut into stages (EfficientNets, MobileNetV2 and ResNets can): "
        "set trainable to 0 or choose another backbone"
    )


def split(model: nn.Module, trainable: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Trunk and tail of a model: the last `trainable` stages are the tail. ConfigError for fewer than one or
    more than there are."""
    stages = stages_of(model)
    if not 1 <= trainable <= len(stages):
        raise ConfigError(f"trainable = {trainable}; {type(model).__name__} has 1 to {len(stages)} stages")
    cut = len(stages) - trainable
    return nn.Sequential(*stages[:cut]), nn.Sequential(*stages[cut:])


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
