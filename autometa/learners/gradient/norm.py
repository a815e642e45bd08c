"""Batch norm for learners that adapt: it is stated which statistics normalise the queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from autometa.learners.networks import ConvBlock

NormMode = Literal["transductive", "support", "per_step", "per_step_transductive"]
"""`transductive`: every set of images is normalised by its own statistics, so that an answer depends on all
queries (what the MAML papers do). `support`: queries are normalised by the statistics of the support.
`per_step`: queries are normalised by running statistics of past queries, with scale and shift, of their own for
every inner step, as Antoniou et al. (2019) describe it. `per_step_transductive`: scale and shift of their own for
every inner step, but the statistics of each set itself, as the code of that paper does it."""
PER_STEP = ("per_step", "per_step_transductive")
Moments = tuple[torch.Tensor, torch.Tensor]
"""Mean and (biased) variance [c] of maps."""


def count_values(maps: torch.Tensor) -> int:
    """Numbers of a channel of maps [n, c, h, w]."""
    return maps.shape[0] * maps.shape[2] * maps.shape[3]


def has_single_value(maps: torch.Tensor) -> bool:
    """Whether a channel is a single number, which has no variance."""
    return count_values(maps) == 1


def measure_moments(maps: torch.Tensor) -> Moments:
    """Those of maps [n, c, h, w], under `vmap` too (where torch's own batch norm has wrong second-order
    gradients). Sums, since the gradient of a mean is as large as the maps."""
    count = count_values(maps)
    mean = maps.sum((0, 2, 3)) / count
    return mean, ((maps * maps).sum((0, 2, 3)) / count - mean * mean).clamp(min=0)


def measure_moments_by_patches(maps: torch.Tensor, weight: torch.Tensor) -> Moments:
    """Those of the 3×3 convolution of maps [n, c, h, w] with `weight` [c', c, 3, 3], from the mean m and the
    covariance C of the patches: wᵀm and wᵀCw. With few channels, as images have, they are far smaller than
    what the convolution gives."""
    patches = F.unfold(maps, 3, padding=1)  # [n, 9 c, h w]
    count = patches.shape[0] * patches.shape[2]
    mean = patches.sum((0, 2)) / count
    covariance = (patches @ patches.transpose(1, 2)).sum(0) / count - mean[:, None] * mean
    rows = weight.flatten(1)
    return rows @ mean, ((rows @ covariance) * rows).sum(1).clamp(min=0)


class TaskNorm(nn.Module):
    """Batch norm over maps [n, c, h, w] of one task. `step` and `recording` (the images are the support) are
    set by the learner before every pass, `vectorised` by `under_vmap`."""

    def __init__(
        self, channels: int, mode: NormMode, steps: int, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.mode, self.eps, self.momentum = mode, eps, momentum
        self.step, self.recording, self.vectorised = 0, True, False
        shape = (steps + 1, channels) if mode in PER_STEP else (channels,)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        if mode == "per_step":
            self.register_buffer("running_mean", torch.zeros(shape))
            self.register_buffer("running_var", torch.ones(shape))
        self.recorded: Moments | None = None

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, c, h, w] → the same shape."""
        if self.mode == "per_step":
            step = min(self.step, len(self.weight) - 1)
            weight, bias = self.weight[step], self.bias[step]
            mean, variance = self.running_mean[step], self.running_var[step]
            if not (self.training or self.recording) or has_single_value(maps):
                return F.batch_norm(maps, mean, variance, weight, bias, eps=self.eps)
            if not self.recording:
                mean.lerp_(maps.detach().mean((0, 2, 3)), self.momentum)
                variance.lerp_(maps.detach().var((0, 2, 3)), self.momentum)
            return self.normalise_by_torch(maps, weight, bias)
        weight, bias = self.weight, self.bias
        if self.mode == "per_step_transductive":
            step = min(self.step, len(weight) - 1)
            weight, bias = weight[step], bias[step]
        if self.can_use_torch(maps):
            return self.normalise_by_torch(maps, weight, bias)
        scale, shift = self.affine(lambda: measure_moments(maps), weight, bias)
        return maps * scale[:, None, None] + shift[:, None, None]

    def can_use_torch(self, maps: torch.Tensor) -> bool:
        """Whether torch's own batch norm will do, which is faster where no gradients of gradients are needed, as for
        queries. It will not where its gradients are wrong, or where it refuses (a single number a channel)."""
        return self.mode != "support" and not (self.recording or self.vectorised or has_single_value(maps))

    def normalise_by_torch(
        self, maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """Maps [n, c, h, w] normalised by their own statistics, as torch does it."""
        return F.batch_norm(maps, None, None, weight, bias, training=True, eps=self.eps)

    def affine(
        self, measure: Callable[[], Moments], weight: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and shift [c] that normalise maps whose mean and variance `measure` gives, and then multiply them
        by `weight` and add `bias`."""
        if self.mode != "support" or self.recording or self.recorded is None:
            mean, variance = measure()
            self.recorded = (mean, variance) if self.mode == "support" else None
        else:
            mean, variance = self.recorded
        scale = weight * (variance + self.eps).rsqrt()
        return scale, bias - mean * scale


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
        norm = self.norm
        if norm.can_use_torch(maps) and not self._few:
            maps = norm.normalise_by_torch(self.convolution(maps), norm.weight, norm.bias)
            return F.relu(F.max_pool2d(maps, 2) if self._halves(maps) else maps)
        sign = 1 - 2 * (norm.weight < 0).to(norm.weight.dtype)  # no numbers of the host: graphs hold it
        filters = self.convolution.weight * sign[:, None, None, None]
        results = F.conv2d(maps, filters, padding=1)
        scale, shift = norm.affine(
            lambda: measure_moments_by_patches(maps, filters) if self._few else measure_moments(results),
            norm.weight * sign,
            norm.bias,
        )
        if self._halves(results):
            results = F.max_pool2d(results, 2)
        return F.relu(results * scale[:, None, None] + shift[:, None, None])

    @property
    def _few(self) -> bool:
        """Whether patches are smaller than what is made of them."""
        return self.convolution.in_channels * 9 < self.convolution.out_channels

    def _halves(self, maps: torch.Tensor) -> bool:
        return self.pool and min(maps.shape[-2:]) > 1


def replace_batch_norm(module: nn.Module, mode: NormMode, steps: int) -> None:
    """Replace every batch norm that is trained from scratch in `module` by a `TaskNorm`."""
    for name, child in module.named_children():
        if isinstance(child, ConvBlock) and mode not in PER_STEP:
            setattr(module, name, TaskBlock(child, mode))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, TaskNorm(child.num_features, mode, steps, child.eps))
        else:
            replace_batch_norm(child, mode, steps)


@contextmanager
def under_vmap(module: nn.Module) -> Iterator[None]:
    """Every norm in `module` takes the formulas that are right under `vmap`."""
    norms = [child for child in module.modules() if isinstance(child, TaskNorm)]
    for norm in norms:
        norm.vectorised = True
    try:
        yield
    finally:
        for norm in norms:
            norm.vectorised = False


def forget_statistics(module: nn.Module) -> None:
    """Let go of the statistics of a support, and of the graph behind them."""
    for child in module.modules():
        if isinstance(child, TaskNorm):
            child.recorded = None


def set_phase(module: nn.Module, step: int, *, recording: bool) -> None:
    """Tell every `TaskNorm` the inner step and whether the images that come are the support."""
    for child in module.modules():
        if isinstance(child, TaskNorm):
            child.step, child.recording = step, recording
