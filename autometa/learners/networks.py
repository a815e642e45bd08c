"""The classic networks of few-shot learning, for small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autometa.core.errors import ConfigError

DROPPED_PX = 5
"""Side of the squares that DropBlock takes out of a map."""
RAMP = 40_000
"""Batches over which its rate rises from zero."""


class DropBlock(nn.Module):
    """Takes squares out of feature maps while training and scales what is left (Ghiasi et al. 2018). `rate`: share of
    the values that it takes, reached after `RAMP` batches, as MetaOptNet does it (Lee et al. 2019)."""

    batches: torch.Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → the same shape."""
        if not self.training:
            return maps
        self.batches += 1
        n, channels, height, width = maps.shape
        side = min(DROPPED_PX, height, width)
        down, right = height - side + 1, width - side + 1
        rate = self.rate * (self.batches / RAMP).clamp(max=1)
        chance = rate * (height * width) / (side**2 * down * right)
        corners = torch.rand(n, channels, down, right, device=maps.device) < chance
        padded = F.pad(corners.to(maps.dtype), (side - 1,) * 4)
        kept = 1 - F.max_pool2d(padded, side, stride=1)
        return maps * kept * (kept.numel() / kept.sum().clamp(min=1))


def join_blocks(blocks: list[nn.Module], drop_block: float) -> list[nn.Module]:
    """These blocks, the last two of them with DropBlock of this rate behind them, if it is not zero."""
    if not drop_block:
        return blocks
    return [*blocks[:-2], *(nn.Sequential(block, DropBlock(drop_block)) for block in blocks[-2:])]


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution as a matrix product: the same weights, and several times as fast on single vectors, above all
    where gradients go through gradients, for which PyTorch transposes a convolution of the weights."""

    def __init__(self, channels_in: int, channels: int, *, bias: bool = True) -> None:
        super().__init__(channels_in, channels, 1, bias=bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → [n, channels, h, w]."""
        return F.linear(maps.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class ConvBlock(nn.Sequential):
    """3×3 convolution, batch norm, ReLU, and 2×2 max pooling where the map has room for it. ReLU comes last:
    the result is the same, on a quarter of the numbers."""

    def __init__(self, channels_in: int, channels: int, *, pool: bool = True) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.pool = pool

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → [n, channels, h // 2, w // 2], or h, w without pooling."""
        maps = super().forward(maps)
        return F.relu(F.max_pool2d(maps, 2) if self.pool and min(maps.shape[-2:]) > 1 else maps)


class Conv4(nn.Sequential):
    """Four blocks of 3×3 convolutions (Vinyals et al. 2016): pixels [n, 3, px, px] → maps. With `pools` = 2
    only the first two blocks halve the map, as Relation networks want it (Sung et al. 2018)."""

    def __init__(self, channels: int = 64, pools: int = 4, drop_block: float = 0.0) -> None:
        blocks: list[nn.Module] = [
            ConvBlock(3 if i == 0 else channels, channels, pool=i < pools) for i in range(4)
        ]
        super().__init__(*join_blocks(blocks, drop_block))


class DenseBlock(nn.Module):
    """A layer that sees all numbers, batch norm, ReLU."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(width_in, width, bias=False), nn.BatchNorm2d(width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → [n, width, 1, 1]."""
        return F.relu(self.norm(self.layer(maps.flatten(1))[..., None, None]))


class MLP(nn.Sequential):
    """Four dense layers, 4, 2, 1 and 1 times `channels` wide: the network without convolutions of Finn et al. (2017),
    on pixels [n, 3, px, px] → [n, channels, 1, 1]."""

    def __init__(self, channels: int = 64, px: int = 28) -> None:
        widths = [4 * channels, 2 * channels, channels, channels]
        super().__init__(*map(DenseBlock, [3 * px**2, *widths], widths))


class ResidualBlock(nn.Module):
    """Three 3×3 convolutions with batch norm beside a 1×1 shortcut, leaky ReLU, 2×2 max pooling."""

    def __init__(self, channels_in: int, channels: int, *, pool: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [
                nn.Conv2d(channels_in if i == 0 else channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                *([nn.LeakyReLU(0.1)] if i < 2 else []),
            ]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        self.pool = pool

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → [n, channels, h // 2, w // 2], or h, w without pooling."""
        maps = self.body(maps) + self.shortcut(maps)
        return F.leaky_relu(F.max_pool2d(maps, 2) if self.pool and min(maps.shape[-2:]) > 1 else maps, 0.1)


class ResNet12(nn.Sequential):
    """Four residual blocks of `channels`, 2.5, 5 and 10 times as many (Oreshkin et al. 2018, with the widths of Lee
    et al. 2019): pixels [n, 3, px, px] → maps. `pools` of the blocks halve the map."""

    def __init__(self, channels: int = 64, pools: int = 4, drop_block: float = 0.0) -> None:
        widths = [channels, channels * 5 // 2, channels * 5, channels * 10]
        blocks: list[nn.Module] = [
            ResidualBlock(before, width, pool=i < pools)
            for i, (before, width) in enumerate(zip([3, *widths], widths, strict=False))
        ]
        super().__init__(*join_blocks(blocks, drop_block))


def build_network(name: str, px: int, channels: int, pools: int, drop_block: float) -> nn.Sequential:
    """One of these networks, untrained, for images of a size. ConfigError where it has no maps for DropBlock."""
    if name != "mlp":
        made: nn.Sequential = {"conv4": Conv4, "resnet12": ResNet12}[name](channels, pools, drop_block)
        return made
    if drop_block:
        raise ConfigError(
            f"encoder: drop_block: {drop_block} with network: mlp, which has no maps: leave it out"
        )
    return MLP(channels, px)
