"""Images as several encoders take them, so that a frozen trunk that they share runs over each image once."""

from __future__ import annotations

import torch

from autometa.budget import UNLIMITED, TimeBudget, stopwatch
from autometa.errors import BudgetExhausted
from autometa.learners.encoder import Encoder, Images
from autometa.learners.storage import MEMORY, Storage
from autometa.planning import SLOWDOWN

PROBED, MARKS = 24, 2
"""Images that the time for all is foretold from, and by which a trunk is known again."""


class PreparedImages:
    """Images uint8 [n, 3, h, w] and what the latest encoder took for them, kept in `storage` for the next one.

    `image_s`: measured seconds to prepare an image, 0 before the first time.
    """

    def __init__(self, images: Images, storage: Storage = MEMORY) -> None:
        self.images = images
        self.image_s = 0.0
        self._storage = storage
        self._mark: torch.Tensor | None = None
        self._inputs: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def of(self, encoder: Encoder, budget: TimeBudget = UNLIMITED) -> torch.Tensor:
        """What the encoder takes for all images [n, ...], the same tensor as before where the encoder has the same
        trunk. BudgetExhausted where time or room do not do, before much of either is spent."""
        mark = encoder.prepare(self.images[:MARKS])
        if self._inputs is not None and self._mark is not None and _equal(mark, self._mark):
            return self._inputs
        self._inputs = None  # before others are made: there may be room for one only
        self._foretell(encoder, budget)
        elapsed = stopwatch(budget.clock)
        self._inputs, self._mark = encoder.prepare(self.images, budget, self._storage), mark
        self.image_s = elapsed() / max(len(self), 1)
        return self._inputs

    def _foretell(self, encoder: Encoder, budget: TimeBudget) -> None:
        """Measure a few images; BudgetExhausted where all would take too long."""
        elapsed = stopwatch(budget.clock)
        few = self.images[:PROBED]
        encoder.prepare(few)
        self.image_s = elapsed() / max(len(few), 1)
        needed_s = SLOWDOWN * self.image_s * len(self)
        if not budget.fits(needed_s):
            raise BudgetExhausted(
                f"{len(self)} images take {needed_s:.1f} s to prepare, {max(budget.left_s(), 0):.1f} s are left"
            )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
