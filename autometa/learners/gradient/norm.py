"""Batch norm for learners that adapt: which statistics normalise the queries is said, not assumed."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from autometa.learners.networks import ConvBlock

NormMode = Literal["transductive", "support", "per_step"]
"""`transductive`: every set of images is normalised by its own statistics, so that an answer depends on all
queries (what the MAML papers do). `support`: queries are normalised by the statistics of the support.
`per_step`: queries are normalised by running statistics of past queries, with scale and shift, of their own for
every inner step (Antoniou et al. 2019)."""


PART = 8
"""Images whose squares are held at a time: few enough for a cache."""


class Moments(torch.autograd.Function):
    """Mean and variance [c] of maps [n, c, h, w], for every order of gradients. The backward pass is one over
    the maps; torch's own takes several."""

    generate_vmap_rule = True

    @staticmethod
    def forward(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and (biased) variance, the mean of squares less the square of the mean."""
        count = maps.shape[0] * maps.shape[2] * maps.shape[3]
        mean = maps.sum((0, 2, 3)) / count
        parts = [(part * part).sum((0, 2, 3)) for part in maps.split(PART)]
        squares = torch.stack(parts).sum(0) / count
        return mean, (squares - mean * mean).clamp(min=0)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[torch.Tensor], output: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        """What the backward pass needs."""
        ctx.save_for_backward(inputs[0], output[0])

    @staticmethod
    def backward(ctx: Any, of_mean: torch.Tensor, of_variance: torch.Tensor) -> torch.Tensor:
        """∂mean = 1/N and ∂variance = 2 (x - mean)/N."""
        maps, mean = ctx.saved_tensors
        count = maps.shape[0] * maps.shape[2] * maps.shape[3]
        slope = 2 / count * of_variance
        offset = of_mean / count - slope * mean
        return torch.addcmul(offset[:, None, None], maps, slope[:, None, None])


class TaskNorm(nn.Module):
    """Batch norm over maps [n, c, h, w] of one task. `step` and `recording` (the images are the support) are
    set by the learner before every pass."""

    def __init__(
        self, channels: int, mode: NormMode, steps: int, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.mode, self.eps, self.momentum = mode, eps, momentum
        self.step, self.recording = 0, True
        shape = (steps + 1, channels) if mode == "per_step" else (channels,)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        if mode == "per_step":
            self.register_buffer("running_mean", torch.zeros(shape))
            self.register_buffer("running_var", torch.ones(shape))
        self.recorded: tuple[torch.Tensor, torch.Tensor] | None = None

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, c, h, w] → the same shape."""
        if self.mode == "per_step":
            return self._of_step(maps)
        scale, shift = self.affine(maps, self.weight)
        return maps * scale[:, None, None] + shift[:, None, None]

    def affine(self, maps: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and shift [c] that normalise maps [n, c, h, w] and then multiply them by `weight`."""
        if self.mode == "transductive" or self.recording or self.recorded is None:
            mean, variance = Moments.apply(maps)
            self.recorded = (mean, variance) if self.mode == "support" else None
        else:
            mean, variance = self.recorded
        scale = weight * (variance + self.eps).rsqrt()
        return scale, self.bias - mean * scale

    def _of_step(self, maps: torch.Tensor) -> torch.Tensor:
        step = min(self.step, len(self.weight) - 1)
        weight, bias = self.weight[step], self.bias[step]
        single = maps.shape[0] * maps.shape[2] * maps.shape[3] == 1  # has no variance
        if (self.training or self.recording) and not single:
            if not self.recording:
                self._remember(maps.detach(), step)
            return F.batch_norm(maps, None, None, weight, bias, training=True, eps=self.eps)
        return F.batch_norm(maps, self.running_mean[step], self.running_var[step], weight, bias, eps=self.eps)

    def _remember(self, maps: torch.Tensor, step: int) -> None:
        self.running_mean[step].lerp_(maps.mean((0, 2, 3)), self.momentum)
        self.running_var[step].lerp_(maps.var((0, 2, 3)), self.momentum)


class TaskBlock(nn.Module):
    """`ConvBlock` with `TaskNorm`, pooled before it is normalised, on a quarter of the numbers: where scales are
    positive, the maximum of normalised numbers is the normalised maximum. Channels with a negative one are
    convolved with the opposite filter, which leaves the result as it was. Convolution first, as `ConvBlock`."""

    def __init__(self, block: ConvBlock, mode: NormMode) -> None:
        super().__init__()
        self.convolution, self.pool = cast(nn.Conv2d, block[0]), block.pool
        self.norm = TaskNorm(self.convolution.out_channels, mode, 0)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] → [n, channels, h // 2, w // 2], or h, w without pooling."""
        weight = self.norm.weight
        sign = torch.where(weight < 0, -1.0, 1.0).detach()
        maps = F.conv2d(maps, self.convolution.weight * sign[:, None, None, None], padding=1)
        scale, shift = self.norm.affine(maps, weight * sign)
        if self.pool and min(maps.shape[-2:]) > 1:
            maps = F.max_pool2d(maps, 2)
        return F.relu(maps * scale[:, None, None] + shift[:, None, None])


def with_task_norm(module: nn.Module, mode: NormMode, steps: int) -> None:
    """Replace every batch norm that is trained from scratch in `module` by a `TaskNorm`."""
    for name, child in module.named_children():
        if isinstance(child, ConvBlock) and mode != "per_step":
            setattr(module, name, TaskBlock(child, mode))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, TaskNorm(child.num_features, mode, steps, child.eps))
        else:
            with_task_norm(child, mode, steps)


def forget(module: nn.Module) -> None:
    """Let go of the statistics of a support, and of the graph behind them."""
    for child in module.modules():
        if isinstance(child, TaskNorm):
            child.recorded = None


def set_phase(module: nn.Module, step: int, *, recording: bool) -> None:
    """Tell every `TaskNorm` the inner step and whether the images that come are the support."""
    for child in module.modules():
        if isinstance(child, TaskNorm):
            child.step, child.recording = step, recording
