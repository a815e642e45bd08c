"""MAML++."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.learners.base import SCALE_FACTOR
from autometa.learners.encoder import Encoder
from autometa.learners.gradient.base import BODY, GradientLearner, InnerLoop
from autometa.learners.gradient.norm import NormMode, TaskNorm
from autometa.learners.gradient.tasks import Task

NORMS = (TaskNorm, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


class MAMLPlusPlusOptions(InnerLoop):
    """`multi_step_share`, `first_order_share`: of the training, see `MAMLPlusPlus`. With `adapt_norm`, which the
    paper does not have, scale and shift of norms are adapted to a task, too."""

    norm: NormMode = "per_step"
    multi_step_share: float = Field(default=0.15, ge=0, le=1)
    first_order_share: float = Field(default=0.5, ge=0, le=1)
    adapt_norm: bool = False


class MAMLPlusPlus(GradientLearner):
    """How to train MAML (Antoniou et al. 2019): the query loss after every step counts, with weights that move
    to the last one over the first `multi_step_share` of the training; inner gradients are constants during the first
    `first_order_share` of it (both shares are the paper's); learned rates per layer and step; batch norm per
    step."""

    options_type = MAMLPlusPlusOptions
    capturable = False
    options: MAMLPlusPlusOptions

    def __init__(self, encoder: Encoder, options: MAMLPlusPlusOptions) -> None:
        super().__init__(encoder, options)
        names = [BODY + n for n, p in encoder.named_parameters() if p.requires_grad]
        self._row = {name: row for row, name in enumerate([*names, "head.weight", "head.bias"])}
        self.rates = nn.Parameter(torch.full((len(self._row), options.steps), options.rate))
        self._norms = tuple(
            f"{BODY}{n}." for n, module in encoder.named_modules() if isinstance(module, NORMS)
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Without the number of meta-batches, which learners of 0.2.0 have."""
        state_dict.pop(f"{prefix}batches", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def rate_factors(self) -> dict[str, float]:
        """Inner rates change by shares of where they start."""
        return {"rates": SCALE_FACTOR * self.options.rate}

    def is_moving(self, name: str) -> bool:
        """All but norms, unless these are asked for."""
        return self.options.adapt_norm or not name.startswith(self._norms)

    def rate(self, name: str, step: int) -> torch.Tensor:
        """Inner rate of a parameter in a step; steps beyond those trained have the last one's."""
        return self.rates[self._row[name], min(step, self.options.steps - 1)]

    @property
    def first_order(self) -> bool:
        """Whether inner gradients are constants by now."""
        return not self.training or self.share_done < self.options.first_order_share

    def step_weights(self) -> torch.Tensor:
        """Weight of the query loss after each step [steps], by how far training is; they sum to one."""
        share = self.options.multi_step_share
        done = min(self.share_done / share, 1.0) if share else 1.0
        weights = torch.full((self.options.steps,), (1 - done) / self.options.steps)
        weights[-1] += done
        return weights

    def task_loss(self, task: Task) -> torch.Tensor:
        """Query losses after each step, weighted."""
        path = self.adapt(task, self.options.steps)
        losses = [
            weight * F.cross_entropy(self.answer(params, task, step), task.query_labels)
            for step, (params, weight) in enumerate(zip(path[1:], self.step_weights(), strict=True), start=1)
            if weight > 0
        ]
        return torch.stack(losses).sum()
