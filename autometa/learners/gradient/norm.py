"""Batch norm for learners that adapt: which statistics normalise the queries is said, not assumed."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

NormMode = Literal["transductive", "support", "per_step"]
"""`transductive`: every set of images is normalised by its own statistics, so that an answer depends on all
queries (what the MAML papers do). `support`: queries are normalised by the statistics of the support.
`per_step`: running statistics, scale and shift of their own for every inner step (Antoniou et al. 2019)."""


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
        self._recorded: tuple[torch.Tensor, torch.Tensor] | None = None

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [n, c, h, w] → the same shape."""
        if self.mode == "per_step":
            return self._of_step(maps)
        if self.mode == "transductive":
            return F.batch_norm(maps, None, None, self.weight, self.bias, training=True, eps=self.eps)
        if self.recording or self._recorded is None:
            self._recorded = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
        mean, variance = self._recorded
        scale = self.weight * (variance + self.eps).rsqrt()
        return maps * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]

    def _of_step(self, maps: torch.Tensor) -> torch.Tensor:
        step = min(self.step, len(self.weight) - 1)
        if self.training:
            with torch.no_grad():
                for running, batch in (
                    (self.running_mean, maps.mean((0, 2, 3))),
                    (self.running_var, maps.var((0, 2, 3))),
                ):
                    running[step].lerp_(batch, self.momentum)
            return F.batch_norm(
                maps, None, None, self.weight[step], self.bias[step], training=True, eps=self.eps
            )
        return F.batch_norm(
            maps,
            self.running_mean[step],
            self.running_var[step],
            self.weight[step],
            self.bias[step],
            eps=self.eps,
        )


def with_task_norm(module: nn.Module, mode: NormMode, steps: int) -> None:
    """Replace every batch norm that is trained from scratch in `module` by a `TaskNorm`."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, TaskNorm(child.num_features, mode, steps, child.eps))
        else:
            with_task_norm(child, mode, steps)


def set_phase(module: nn.Module, step: int, *, recording: bool) -> None:
    """Tell every `TaskNorm` the inner step and whether the images that come are the support."""
    for child in module.modules():
        if isinstance(child, TaskNorm):
            child.step, child.recording = step, recording
