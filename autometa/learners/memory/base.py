"""What the memory-based learners share: a task as a sequence of labelled images, and queries asked after it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import nn

from autometa.errors import ConfigError
from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled

WIDEST = 128
"""Above this width of an embedding, memories see it through a normalised projection of this width."""
SEED = 0
"""Of the orders and slots at test."""


class MemoryOptions(Options):
    """Options of every memory-based learner, explained at `MemoryLearner`."""

    max_ways: int = Field(default=20, ge=2)
    readings: int = Field(default=4, ge=1)


@dataclass(frozen=True)
class Sequences:
    """Supports of b tasks in the order in which a memory meets them, padding first: embeddings [b, s, d],
    labels as one-hot slots [b, s, max_ways], `real` bool [b, s]; queries [b, q, d]. Padding is zero."""

    support: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor
    query: torch.Tensor


class MemoryLearner(MetricLearner):
    """A learner that reads the support as a labelled sequence and answers every query by itself, from the
    state that the sequence left.

    It has outputs for `max_ways` classes (slots), of which a task uses as many as it has classes; ConfigError
    where it has more. In training the order of the support and the slots of the classes are random. At test
    answers are the mean over `readings` fixed orders with fixed slots: deterministic, but another order of the
    support gives another answer. Slots go by the first appearance in that order, not by the label:
    renaming the classes renames the answer, exactly.
    """

    def __init__(self, encoder: Encoder, options: MemoryOptions) -> None:
        super().__init__(encoder, options)
        self.max_ways, self.readings = options.max_ways, options.readings
        self.seen_width = min(self.width, WIDEST)
        self.reduce: nn.Module = nn.Identity()
        if self.seen_width < self.width:  # numbers of order one, as labels are
            self.reduce = nn.Sequential(nn.Linear(self.width, self.seen_width), nn.LayerNorm(self.seen_width))

    @abstractmethod
    def read(self, sequences: Sequences) -> torch.Tensor:
        """Logits [b, q, max_ways] of the queries, each asked on its own copy of the state."""

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: logits in training, else the log of the mean probability over readings."""
        self._check(batch)
        support, query = self.reduce(batch.support), self.reduce(batch.query)
        if self.training:
            return self._reading(batch, support, query, None)
        readings = [self._reading(batch, support, query, k).softmax(-1) for k in range(self.readings)]
        return batch.mask_absent(torch.stack(readings).mean(0).clamp(min=1e-30).log())

    def _check(self, batch: FeatureBatch) -> None:
        ways = int(batch.ways.max())
        if ways > self.max_ways:
            raise ConfigError(
                f"a task has {ways} classes, but {type(self).__name__} has outputs for max_ways = "
                f"{self.max_ways}: train it with options: {{max_ways: {ways}}}"
            )

    def _reading(
        self, batch: FeatureBatch, support: torch.Tensor, query: torch.Tensor, reading: int | None
    ) -> torch.Tensor:
        """Scores [b, q, n] of one order and one assignment of slots; random where no `reading` is given."""
        order = self._order(batch.real, reading)
        real = batch.real.gather(1, order)
        named = batch.one_hot.gather(1, order[..., None].expand(-1, -1, batch.one_hot.shape[-1]))
        slots = self._slots(named, reading)
        labels = named @ nn.functional.one_hot(slots, self.max_ways).to(named.dtype)
        ordered = support.gather(1, order[..., None].expand_as(support)) * real[..., None]
        logits = self.read(Sequences(ordered, labels, real, query))
        return batch.mask_absent(logits.gather(2, slots[:, None, :].expand(-1, logits.shape[1], -1)))

    def _order(self, real: torch.Tensor, reading: int | None) -> torch.Tensor:
        """Support rows [b, s], padding first; fixed orders depend on the number of images alone."""
        if reading is None:
            keys = torch.rand(real.shape, device=real.device)
        else:
            drawn = np.random.default_rng((SEED, reading)).random(real.shape[1], dtype=np.float32)
            place = (real.cumsum(1) - 1).clamp(min=0)
            keys = torch.from_numpy(drawn).to(real.device)[place]
        return keys.masked_fill(~real, -1.0).argsort(dim=1, stable=True)

    def _slots(self, named: torch.Tensor, reading: int | None) -> torch.Tensor:
        """Slots [b, n] of the classes of ordered one-hot labels [b, s, n]."""
        b, s = named.shape[:2]
        places = torch.arange(s, device=named.device)[:, None].expand_as(named)
        first = places.masked_fill(named == 0, s).amin(1)
        rank = first.argsort(dim=1, stable=True).argsort(dim=1)
        if reading is None:
            keys = torch.rand(b, self.max_ways, device=named.device)
            return keys.argsort(dim=1).gather(1, rank)
        drawn = np.random.default_rng((SEED, reading)).permutation(self.max_ways)
        return torch.from_numpy(drawn).to(named.device)[rank]
