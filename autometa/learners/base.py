"""What all episodic learners share: an encoder, a loss on a batch of episodes, scores for their queries."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from autometa.core.chunks import fits_memory
from autometa.core.errors import BudgetExhausted
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes

Gradients = list[torch.Tensor | None]
SCALE_FACTOR = 20.0
"""Scales and inner rates are trained by so many times the learning rate: what suits weights hardly moves them."""


class Options(BaseModel):
    """Options of a learner; those of each class say what there is to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EpisodicLearner(nn.Module):
    """Learns from episodes how to answer episodes; any ways, any shots, within a batch as well.

    Calling it gives scores float32 [b, q, n], -inf for classes that an episode does not have; their softmax
    over classes are the probabilities.
    """

    options_type: ClassVar[type[Options]] = Options
    mixed_precision = True
    """Whether a GPU may compute the loss in bfloat16."""
    scales: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that are logarithms of scales."""

    def __init__(self, encoder: Encoder, options: Options) -> None:
        super().__init__()
        self.encoder = encoder
        self.share_done = 0.0
        """Of its training, in 0..1; whoever trains it keeps it up."""
        self._parts = 1

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries."""
        raise NotImplementedError

    def rate_factors(self) -> dict[str, float]:
        """How many times the learning rate some parameters are trained by, by name; all others by it."""
        return dict.fromkeys(self.scales, SCALE_FACTOR)

    def loss(self, episodes: InputEpisodes) -> torch.Tensor:
        """What training minimises: a scalar, the mean over queries of episodes with labels."""
        return mean_nll(self(episodes), episodes.query_labels)

    def accumulate(self, episodes: InputEpisodes) -> float:
        """Add the gradients of the loss to the parameters; the loss. Where memory runs out, part by part from then
        on: the gradients are the same, but for a batch norm that is trained, whose statistics are those of a part.
        BudgetExhausted where a single episode does not fit."""
        before = copy_gradients(self)
        while True:
            fits, loss, error = fits_memory(lambda: self._accumulate_parts(episodes))
            if fits:
                return loss or 0.0
            restore_gradients(self, before)
            if self._parts >= len(episodes.ways):
                raise BudgetExhausted(f"not enough memory for a single episode ({error})")
            self._parts *= 2

    def accumulate_alone(self, episodes: InputEpisodes) -> float:
        """The same for one episode, on this thread, in the way that needs least memory."""
        return self._accumulate_parts(episodes)

    def limit_at_once(self, most: int, batch: int) -> None:
        """Take no more than so many episodes of a batch at once, as no more have room."""
        self._parts = max(self._parts, -(-batch // most))

    def count_at_once(self, batch: int) -> int:
        """How many episodes of a batch are in memory at once."""
        return -(-batch // self._parts)

    def _accumulate_parts(self, episodes: InputEpisodes) -> float:
        """Add the gradients in `_parts` parts, each weighted by its queries."""
        n, total = len(episodes.ways), 0.0
        size = -(-n // self._parts)
        queries = (episodes.query_labels >= 0).sum(1).cpu().double()  # a GPU of Apple has no float64
        shares = queries / queries.sum()
        mixed = self.mixed_precision and episodes.query.is_cuda
        for start in range(0, n, size):
            share = float(shares[start : start + size].sum())
            with torch.autocast(episodes.query.device.type, torch.bfloat16, enabled=mixed):
                loss = self.loss(episodes if size >= n else episodes.part(start, start + size))
            weighted = loss if size >= n else share * loss
            weighted.backward()  # outside autocast: it takes the precisions of the forward pass
            total += float(weighted.detach())
        return total

    def validate(self, inputs: torch.Tensor, validation: ValidationEpisodes) -> Answer:
        """The answer on validation episodes over images whose `inputs` [n, ...] are given; in evaluation
        mode, without gradients."""
        self.eval()
        device = next(self.parameters()).device
        with torch.no_grad():
            scores = []
            for batch in validation.batches:
                episodes = InputEpisodes.of_rows(inputs, batch)
                scores.append(self(episodes.to(str(device))).float().cpu())
        return validation.measure_with_loss(scores)


def copy_gradients(learner: nn.Module) -> Gradients:
    """The gradients of a learner as they are now."""
    return [None if p.grad is None else p.grad.clone() for p in learner.parameters()]


def restore_gradients(learner: nn.Module, before: Gradients) -> None:
    """Put copies of earlier gradients back: backward passes add in place."""
    for parameter, gradient in zip(learner.parameters(), before, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()


def mean_nll(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of labels [b, q] (-1: ignored) under softmax of scores [b, q, n]."""
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=-1)
