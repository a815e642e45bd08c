"""What the memory-based learners share: a task as a sequence of labelled images, and queries asked after it."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.core.errors import ConfigError
from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled

WIDEST = 128
"""Above this width of an embedding, memories see it through a projection of this width."""
SEED = 0
"""Of the orders and slots at test."""


class MemoryOptions(Options):
    """Options of every memory-based learner, explained at `MemoryLearner`."""

    max_ways: int = Field(default=20, ge=2)
    readings: int = Field(default=4, ge=1)


@dataclass(frozen=True)
class Sequences:
    """Supports of b tasks in the order in which a memory meets them, padding first: embeddings [b, s, d], each
    number of variance one, labels as one-hot slots [b, s, max_ways], `real` bool [b, s]; queries [b, q, d].
    Padding is zero."""

    support: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor
    query: torch.Tensor

    @property
    def labelled(self) -> torch.Tensor:
        """The support with labels beside it, [b, s, d + max_ways]; a label is as long as an image, or it would
        be drowned by it."""
        return torch.cat([self.support, math.sqrt(self.support.shape[-1]) * self.labels], dim=-1)

    @property
    def asked(self) -> torch.Tensor:
        """The queries with zeros for a label, [b, q, d + max_ways]."""
        return F.pad(self.query, (0, self.labels.shape[-1]))


class MemoryLearner(MetricLearner):
    """A learner that reads the support as a labelled sequence and answers every query by itself, from the
    state that the sequence left.

    It has outputs for `max_ways` classes (slots), of which a task uses as many as it has classes; ConfigError
    where it has more. Every task is read `readings` times, in other orders and with other slots for its
    classes. In training they are random, and cheap beside the embedding that they share. At test they are
    fixed and answers are the mean: deterministic, but another order of the support gives another answer. Slots
    go by the first appearance in the order, not by the label: renaming the classes renames the answer,
    exactly. Embeddings are normalised, over the batch in training, by running statistics at test.
    """

    def __init__(self, encoder: Encoder, options: MemoryOptions) -> None:
        super().__init__(encoder, options)
        self.max_ways, self.readings = options.max_ways, options.readings
        given, self.width = self.width, min(self.width, WIDEST)
        narrow = nn.Identity() if given == self.width else nn.Linear(given, self.width)
        self.reduce = nn.Sequential(narrow, nn.BatchNorm1d(self.width, affine=False))

    @abstractmethod
    def read(self, sequences: Sequences) -> torch.Tensor:
        """Logits [b, q, max_ways] of the queries, each asked on its own copy of the state."""

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [n, ...] of the encoder → what memories see, float32 [n, width]."""
        seen: torch.Tensor = self.reduce(super().embed(inputs).float())
        return seen

    def embedded_loss(
        self, batch: FeatureBatch, unlabelled: Unlabelled | None, query_labels: torch.Tensor
    ) -> torch.Tensor:
        """The mean over readings in training."""
        if self.training:
            batch, query_labels = repeat_tasks(batch, self.readings), query_labels.repeat(self.readings, 1)
        return super().embedded_loss(batch, unlabelled, query_labels)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: logits of one reading in training, else the log of the mean probability over all."""
        ways = int(batch.ways.max())
        if ways > self.max_ways:
            raise ConfigError(
                f"a task has {ways} classes, but {type(self).__name__} has outputs for max_ways = "
                f"{self.max_ways}: train it with options: {{max_ways: {ways}}}"
            )
        if self.training:
            sequences, slots = self._lay_out(batch, None)
            return batch.mask_absent(pick_slots(self.read(sequences), slots))
        readings = [self._lay_out(batch, k) for k in range(self.readings)]
        answers = self.read(join_sequences([sequences for sequences, _ in readings])).chunk(self.readings)
        scores = [
            batch.mask_absent(pick_slots(answer, slots)).log_softmax(-1)
            for answer, (_, slots) in zip(answers, readings, strict=True)
        ]
        return torch.stack(scores).logsumexp(0) - math.log(self.readings)

    def _lay_out(self, batch: FeatureBatch, reading: int | None) -> tuple[Sequences, torch.Tensor]:
        """Sequences in one order, with one assignment of slots [b, n]; random where no `reading` is given."""
        order = self._draw_order(batch.support_mask, reading)
        real = batch.support_mask.gather(1, order)
        named = batch.one_hot.gather(1, order[..., None].expand(-1, -1, batch.one_hot.shape[-1]))
        slots = self._assign_slots(named, reading)
        labels = named @ F.one_hot(slots, self.max_ways).to(named.dtype)
        ordered = batch.support.gather(1, order[..., None].expand_as(batch.support))
        return Sequences(ordered, labels, real, batch.query), slots

    def _draw_order(self, real: torch.Tensor, reading: int | None) -> torch.Tensor:
        """Support rows [b, s], padding first; fixed orders depend on the number of images alone."""
        if reading is None:
            keys = torch.rand(real.shape, device=real.device)
        else:
            drawn = np.random.default_rng((SEED, reading)).random(real.shape[1], dtype=np.float32)
            place = (real.cumsum(1) - 1).clamp(min=0)
            keys = torch.from_numpy(drawn).to(real.device)[place]
        return keys.masked_fill(~real, -1.0).argsort(dim=1, stable=True)

    def _assign_slots(self, named: torch.Tensor, reading: int | None) -> torch.Tensor:
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


def join_sequences(parts: list[Sequences]) -> Sequences:
    """Sequences of one form as one batch."""
    return Sequences(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Sequences)))


def pick_slots(logits: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Logits [b, q, max_ways] of slots → [b, q, n] of classes with these slots [b, n]."""
    return logits.gather(2, slots[:, None, :].expand(-1, logits.shape[1], -1))


def repeat_tasks(batch: FeatureBatch, n: int) -> FeatureBatch:
    """All tasks of a batch, n times."""
    return replace(
        batch,
        support=batch.support.repeat(n, 1, 1),
        support_labels=batch.support_labels.repeat(n, 1),
        query=batch.query.repeat(n, 1, 1),
        ways=batch.ways.repeat(n),
        query_real=batch.query_mask.repeat(n, 1),
    )
