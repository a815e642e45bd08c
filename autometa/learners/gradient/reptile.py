"""Reptile."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.base import GradientLearner, InnerLoop
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.tasks import Task

BETA = 0.999
EPSILON = 1e-6
"""More than rounding: the body has no gradient while all classes share one vector of the head."""


class ReptileOptions(InnerLoop):
    """Many small steps; `batch`: images of a mini-batch in training. Tasks are taken one after the other, and
    there are no second-order gradients."""

    steps: int = Field(default=8, ge=1)
    test_steps: int = Field(default=50, ge=0)
    rate: float = Field(default=0.001, gt=0)
    norm: Literal["transductive", "support"] = "transductive"
    first_order: Literal[False] = False
    clip: None = None
    tasks: Literal["auto", "loop"] = "auto"
    task_memory: None = None
    batch: int = Field(default=10, ge=1)


class Reptile(GradientLearner):
    """θ moves towards what training on a task makes of it, θ + ε(θ' - θ), without a query (Nichol et al.
    2018). Inner steps are Adam's without momentum (β1 = 0), on mini-batches of `batch` images of the task,
    whose query counts as support in training; at test there are many steps on the support.

    The direction θ - θ' stands in for a gradient: plain SGD with rate ε is the paper's outer step.
    """

    options_type = ReptileOptions
    vectorised = False
    options: ReptileOptions

    def __init__(self, encoder: Encoder, options: ReptileOptions) -> None:
        super().__init__(encoder, options)
        self._order = torch.empty(0, dtype=torch.long)

    def accumulate(self, episodes: InputEpisodes) -> float:
        """θ - θ' of each task, averaged, where gradients are expected; the mean loss before the steps."""
        total, own = 0.0, dict(self.named_parameters())
        for place in range(len(episodes.ways)):
            task = Task.of(episodes, place)
            images = torch.cat([task.support, task.query])
            labels = torch.cat([task.support_labels, task.query_labels])
            start, end, loss = self._run_adam(images, labels, task, self.options.steps, mini=True)
            learned = {name: own[name] for name in start if name in own}
            if self.options.head == "shared":
                learned["head.weight"] = self.start_weight
            if self.options.head == "learned":
                learned |= {f"head.{name}": p for name, p in self.start_head.named_parameters()}
            for name, parameter in learned.items():
                difference = (start[name] - end[name]).detach()
                if name == "head.weight" and self.options.head == "shared":  # all classes start at one vector
                    difference = difference.mean(0)
                share = difference / len(episodes.ways)
                parameter.grad = share if parameter.grad is None else parameter.grad + share
            total += loss / len(episodes.ways)
        return total

    def accumulate_alone(self, episodes: InputEpisodes) -> float:
        """As for a batch, whose tasks are taken one after the other."""
        return self.accumulate(episodes)

    def count_at_once(self, batch: int) -> int:
        """One."""
        return 1

    def adapt(self, task: Task, steps: int) -> list[Params]:
        """Parameters before and after training on the support."""
        start, end, _ = self._run_adam(task.support, task.support_labels, task, steps, mini=False)
        return [start, end]

    def _run_adam(
        self, images: torch.Tensor, labels: torch.Tensor, task: Task, steps: int, *, mini: bool
    ) -> tuple[Params, Params, float]:
        """Parameters before and after `steps` of Adam, and the first loss."""
        start = {name: tensor.detach() for name, tensor in self.initial(task).items()}
        current = {name: tensor.clone() for name, tensor in start.items()}
        squares = {name: torch.zeros_like(tensor) for name, tensor in current.items()}
        first, self._order = 0.0, torch.empty(0, dtype=torch.long)
        for step in range(steps):
            rows = self._draw_mini_batch(len(images)) if mini else torch.arange(len(images))
            current = {name: tensor.requires_grad_() for name, tensor in current.items()}
            with torch.enable_grad():
                logits = self.logits(current, images[rows], step, recording=True)
                loss = F.cross_entropy(logits, labels[rows])
                gradients = torch.autograd.grad(loss, list(current.values()))
            first = float(loss.detach()) if step == 0 else first
            moved = {}
            for (name, tensor), gradient in zip(current.items(), gradients, strict=True):
                squares[name] = BETA * squares[name] + (1 - BETA) * gradient.square()
                scale = (squares[name] / (1 - BETA ** (step + 1))).sqrt() + EPSILON
                moved[name] = tensor.detach() - self.options.rate * gradient / scale
            current = moved
        return start, current, first

    def _draw_mini_batch(self, n: int) -> torch.Tensor:
        """Rows of a mini-batch: the images in random order, in a new one when fewer are left."""
        size = min(self.options.batch, n)
        if len(self._order) < size:
            self._order = torch.randperm(n)
        rows, self._order = self._order[:size], self._order[size:]
        return rows
