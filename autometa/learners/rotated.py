"""Images of a pool and rotated copies of some of them, for a rotation loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from autometa.core.budget import TimeBudget
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, Rows
from autometa.data.turned import ROTATIONS, repeat_classes, turn_classes, turn_images
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import EpisodeSampler
from autometa.learners.storage import Storage


@dataclass(frozen=True)
class RotatedImages:
    """`rows` of a pool as they are, and its `rotated_rows` by 90, 180 and 270° as well; `classes` to train on, which
    the rotated ones are of. Class c rotated r times counts as class c + r·(classes of the pool)."""

    pool: ImagePool
    rows: Rows
    rotated_rows: Rows
    classes: Rows

    @property
    def rotations(self) -> int:
        """In how many rotations training images come: four, or one where no image is rotated."""
        return ROTATIONS if len(self.rotated_rows) else 1

    def prepare(self, encoder: Encoder, budget: TimeBudget, storage: Callable[[], Storage]) -> torch.Tensor:
        """What the encoder takes for the images, then for the rotated ones, rotation by rotation [n, ...]; kept in
        what `storage` says that there is. BudgetExhausted where time or room runs out."""
        images = self.pool.images
        parts = [images[self.rows] if len(self.rows) < len(images) else images]
        parts += [turn_images(images[self.rotated_rows], quarters) for quarters in range(1, self.rotations)]
        total, start = sum(map(len, parts)), 0
        example = encoder.prepare(images[:1])
        inputs = storage().empty((total, *example.shape[1:]), example.dtype)
        for part in parts:
            inputs[start : start + len(part)] = encoder.prepare(part, budget, storage())
            start += len(part)
        return inputs

    def build_sampler(
        self,
        spec: EpisodeSpec,
        rng: np.random.Generator,
        unlabelled_per_class: int = 0,
        *,
        mixed: bool = False,
    ) -> EpisodeSampler:
        """Draws rows of the prepared images, from the classes to train on in every rotation; those of a batch from
        all datasets where they are `mixed`."""
        pool, turned = self.pool, self.pool.labels[self.rotated_rows]
        labels = [pool.labels[self.rows]]
        labels += [turn_classes(turned, quarters, pool.classes) for quarters in range(1, self.rotations)]
        rotated_pool = ImagePool(
            np.zeros((sum(map(len, labels)), 3, 1, 1), np.uint8),  # only labels are read
            np.concatenate(labels),
            np.tile(pool.dataset_of_class, self.rotations),
            pool.datasets,
        )
        classes = repeat_classes(self.classes, self.rotations, pool.classes)
        return EpisodeSampler(rotated_pool, classes, spec, rng, unlabelled_per_class, mixed=mixed)
