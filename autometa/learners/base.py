"""What all episodic learners share: an encoder, a loss on a batch of episodes, scores for their queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from autometa.core.chunks import fits_memory
from autometa.core.errors import TooLittleMemory
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes

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
        TooLittleMemory where a single episode does not fit."""
        n = len(episodes.ways)
        queries = (episodes.query_labels >= 0).sum(1).cpu().double()  # a GPU of Apple has no float64
        shares = queries / queries.sum()

        def work(start: int, stop: int) -> float:
            return self._accumulate_part(episodes, start, stop, float(shares[start:stop].sum()))

        losses = accumulate_in_parts(work, n, self.count_at_once(n), self.parameters(), "episode")
        self._parts = max(self._parts, len(losses))
        return sum(losses)

    def accumulate_alone(self, episodes: InputEpisodes) -> float:
        """The same for one episode, on this thread, in the way that needs least memory."""
        return self._accumulate_part(episodes, 0, len(episodes.ways), 1.0)

    def limit_at_once(self, most: int, batch: int) -> None:
        """Take no more than so many episodes of a batch at once, as no more have room."""
        self._parts = max(self._parts, -(-batch // most))

    def count_at_once(self, batch: int) -> int:
        """How many episodes of a batch are in memory at once."""
        return -(-batch // self._parts)

    def _accumulate_part(self, episodes: InputEpisodes, start: int, stop: int, share: float) -> float:
        """Add the gradients of some of the episodes, which have this share of all queries; their part of the loss."""
        whole = stop - start >= len(episodes.ways)
        mixed = self.mixed_precision and episodes.query.is_cuda
        with torch.autocast(episodes.query.device.type, torch.bfloat16, enabled=mixed):
            loss = self.loss(episodes if whole else episodes.part(start, stop))
        weighted = loss if whole else share * loss
        weighted.backward()  # outside autocast: it takes the precisions of the forward pass
        return float(weighted.detach())

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


def accumulate_in_parts(
    work: Callable[[int, int], float], n: int, part: int, parameters: Iterable[nn.Parameter], item: str
) -> list[float]:
    """What `work(start, stop)` gives, which adds gradients to the parameters, over 0..n in steps of `part`. Where
    memory runs out, all parts are done again in halves: to go on at the one that failed would take a copy of the
    gradients before each, of a whole network, where memory is short. TooLittleMemory where not even one item fits."""
    trained = list(parameters)
    while True:
        undo = snapshot_gradients(trained)
        fits, losses, error = fits_memory(
            lambda size=part: [work(start, min(start + size, n)) for start in range(0, n, size)]  # type: ignore[misc]
        )
        if fits:
            return losses or []
        undo()
        if part == 1:
            raise TooLittleMemory(f"not enough memory for a single {item} ({error})")
        part = -(-min(part, n) // 2)


def snapshot_gradients(parameters: Iterable[nn.Parameter]) -> Callable[[], None]:
    """Copy the gradients as they are now; the result puts the copies back, once: backward passes add in place."""
    kept = [(p, None if p.grad is None else p.grad.clone()) for p in parameters]

    def restore() -> None:
        for parameter, gradient in kept:
            parameter.grad = gradient

    return restore


def mean_nll(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of labels [b, q] (-1: ignored) under softmax of scores [b, q, n]."""
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=-1)
