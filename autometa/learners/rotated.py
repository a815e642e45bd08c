"""Images of a pool and turned copies of some of them, for a rotation loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from autometa.core.budget import TimeBudget
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, Rows
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import EpisodeSampler
from autometa.learners.storage import Storage

TURNS = 4


@dataclass(frozen=True)
class RotatedImages:
    """`rows` of a pool as they are and its rows `turned` by 90, 180 and 270° as well; `classes` to train on,
    which the turned ones are of. Class c turned t times counts as class c + t·(classes of the pool)."""

    pool: ImagePool
    rows: Rows
    turned: Rows
    classes: Rows

    @property
    def turns(self) -> int:
        """In how many turns training images come: four, or, where none are turned, one."""
        return TURNS if len(self.turned) else 1

    def inputs(self, encoder: Encoder, budget: TimeBudget, storage: Callable[[], Storage]) -> torch.Tensor:
        """What the encoder takes for the images, then for the turned ones, turn by turn [n, ...]; kept in what
        `storage` says that there is. BudgetExhausted where time or room runs out."""
        images = self.pool.images
        parts = [images[self.rows] if len(self.rows) < len(images) else images]
        parts += [np.rot90(images[self.turned], turn, (2, 3)) for turn in range(1, self.turns)]
        total, start = sum(map(len, parts)), 0
        example = encoder.prepare(images[:1])
        inputs = storage().empty((total, *example.shape[1:]), example.dtype)
        for part in parts:
            inputs[start : start + len(part)] = encoder.prepare(part, budget, storage())
            start += len(part)
        return inputs

    def sampler(self, form: EpisodeSpec, rng: np.random.Generator) -> EpisodeSampler:
        """Draws rows of `inputs`, from the classes to train on in every turn."""
        pool, shifts = self.pool, [turn * self.pool.classes for turn in range(self.turns)]
        labels = [pool.labels[self.rows], *(pool.labels[self.turned] + shift for shift in shifts[1:])]
        return EpisodeSampler(
            np.concatenate(labels),
            np.concatenate([self.classes + shift for shift in shifts]),
            np.tile(pool.dataset_of_class, self.turns),
            form,
            rng,
        )
