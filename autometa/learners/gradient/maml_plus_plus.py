"""MAML++."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.base import BODY, GradientLearner, InnerLoop
from autometa.learners.gradient.norm import NormMode
from autometa.learners.gradient.tasks import Task


class MAMLPlusPlusOptions(InnerLoop):
    """`annealed`, `first_order_for`: numbers of meta-batches, see `MAMLPlusPlus`."""

    test_steps: int = Field(default=5, ge=0)
    norm: NormMode = "per_step"
    annealed: int = Field(default=200, ge=0)
    first_order_for: int = Field(default=100, ge=0)


class MAMLPlusPlus(GradientLearner):
    """How to train MAML (Antoniou et al. 2019): the query loss after every step counts, with weights that move
    to the last one over the first `annealed` meta-batches; inner gradients are constants during the first
    `first_order_for` of them; learned rates per layer and step; batch norm per step."""

    options_type = MAMLPlusPlusOptions
    capturable = False
    options: MAMLPlusPlusOptions

    def __init__(self, encoder: Encoder, options: MAMLPlusPlusOptions) -> None:
        super().__init__(encoder, options)
        names = [BODY + n for n, p in encoder.named_parameters() if p.requires_grad]
        self._row = {name: row for row, name in enumerate([*names, "head.weight", "head.bias"])}
        self.rates = nn.Parameter(torch.full((len(self._row), options.steps), options.rate))
        self.register_buffer("batches", torch.zeros(()))

    batches: torch.Tensor

    def rate(self, name: str, step: int) -> torch.Tensor:
        """Inner rate of a parameter in a step; steps beyond those trained have the last one's."""
        return self.rates[self._row[name], min(step, self.options.steps - 1)]

    def accumulate(self, episodes: InputEpisodes) -> float:
        """As for every learner, counting meta-batches."""
        loss = super().accumulate(episodes)
        self.batches += 1
        return loss

    @property
    def first_order(self) -> bool:
        """Whether inner gradients are constants by now."""
        return not self.training or float(self.batches) < self.options.first_order_for

    def step_weights(self) -> torch.Tensor:
        """Weight of the query loss after each step [steps], by how far training is; they sum to one."""
        done = min(float(self.batches) / max(self.options.annealed, 1), 1.0)
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
