"""Augmented copies of training images, for networks whose first stages are frozen and computed once an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autometa.core.budget import TimeBudget
from autometa.data.images import Rows
from autometa.learners.augmentation import Augmentation
from autometa.learners.encoder import Encoder, Images
from autometa.learners.storage import Storage

CHUNK = 512
"""Images that are augmented at a time."""


@dataclass(frozen=True)
class Variants:
    """`copies` of each of the images at `rows` (ascending), which lie behind `n_images` images as they are: all first
    copies, then all second ones."""

    rows: Rows
    copies: int
    n_images: int

    def draw(self, rows: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """For images at these of `rows` the place of one of their copies, or of the image as it is."""
        asked = rows.numpy()
        copy = rng.integers(self.copies + 1, size=asked.shape)
        behind = self.n_images + (copy - 1) * len(self.rows) + np.searchsorted(self.rows, asked)
        return torch.from_numpy(np.where(copy == 0, asked, behind))

    def prepare(
        self,
        encoder: Encoder,
        images: Images,
        augmentation: Augmentation,
        rng: np.random.Generator,
        room: tuple[TimeBudget, Storage],
    ) -> torch.Tensor:
        """What the encoder takes for all images uint8 [n_images, 3, h, w], then for the copies [n, ...], within time
        and storage. BudgetExhausted where either runs out."""
        budget, storage = room
        example = encoder.prepare(images[:1])
        total, start = self.n_images + self.copies * len(self.rows), self.n_images
        inputs = storage.empty((total, *example.shape[1:]), example.dtype)
        inputs[:start] = encoder.prepare(images, budget, storage)
        for _ in range(self.copies):
            for first in range(0, len(self.rows), CHUNK):
                rows = self.rows[first : first + CHUNK]
                chunk = torch.from_numpy(np.ascontiguousarray(images[rows]))
                changed = augmentation(chunk, np.arange(len(rows)), rng).numpy()
                inputs[start : start + len(rows)] = encoder.prepare(changed, budget, storage)
                start += len(rows)
        return inputs
