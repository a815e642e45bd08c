"""What some learners need from their training besides its steps."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from autometa.core.budget import TimeBudget
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.learners.base import EpisodicLearner


@runtime_checkable
class ClassTrained(Protocol):
    """A learner whose loss is classification over all training classes."""

    def begin_training(self, classes: int) -> nn.Module:
        """Called once, before the first step, with the number of training classes: the classifier over them.
        It is trained with the learner, is in checkpoints, and is no part of the learner's state."""
        ...


@runtime_checkable
class Centred(Protocol):
    """A learner that needs the mean of training images as it sees them now."""

    def centre_on(self, inputs: torch.Tensor) -> None:
        """Called before every validation, with the same images of training classes, as encoder inputs [n, ...]."""
        ...


@runtime_checkable
class OptionChooser(Protocol):
    """A learner that makes a choice on validation episodes after its training."""

    def choose_options(
        self, inputs: torch.Tensor, validation: ValidationEpisodes, budget: TimeBudget, task_s: float = 0.0
    ) -> str:
        """Choose, within the budget, on episodes over images whose `inputs` [n, ...] are given; what was chosen, for
        people. `task_s`: seconds that a task was measured to take with the slowest options (0: not measured)."""
        ...

    def slowest(self) -> EpisodicLearner:
        """A copy, sharing weights, that takes as long for a task as any choice could make it."""
        ...


@runtime_checkable
class BalanceAware(Protocol):
    """A learner whose answer depends on what is declared of the test."""

    def declare_balance(self, *, balanced: bool) -> None:
        """Called once, before anything else: whether queries are declared to be as many of each class."""
        ...
