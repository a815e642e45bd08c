"""Images as several encoders take them, so that a frozen trunk that they share runs over each image once."""

from __future__ import annotations

import torch

from autometa.core.budget import UNLIMITED, TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted
from autometa.core.speed import SLOWDOWN
from autometa.learners.encoder import Encoder, Images
from autometa.learners.storage import MEMORY, Storage

PROBED, MARKS = 24, 2
"""Images that the time for all is foretold from, and by which a trunk is known again."""


class PreparedImages:
    """Images uint8 [n, 3, h, w] and what the latest encoder took for them, kept in `storage` for the next one."""

    def __init__(self, images: Images, storage: Storage = MEMORY) -> None:
        self.images = images
        self._storage = storage
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None
        self._timed: tuple[torch.Tensor, float] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def inputs_for(self, encoder: Encoder, budget: TimeBudget = UNLIMITED) -> torch.Tensor:
        """What the encoder takes for all images [n, ...], the same tensor as before where the encoder has the same
        trunk. BudgetExhausted where time or room do not do, before much of either is spent."""
        mark, image_s = self._measured(encoder, budget)
        if self._kept is not None and _equal(mark, self._kept[0]):
            return self._kept[1]
        self._kept = None  # before others are made: there may be room for one only
        needed_s = SLOWDOWN * image_s * len(self)
        if not budget.fits(needed_s):
            raise BudgetExhausted(
                f"{len(self)} images take {needed_s:.1f} s to prepare, {max(budget.left_s(), 0):.1f} s are left"
            )
        elapsed = stopwatch(budget.clock)
        inputs = encoder.prepare(self.images, budget, self._storage)
        self._kept, self._timed = (mark, inputs), (mark, elapsed() / len(self))
        return inputs

    def image_s(self, encoder: Encoder, budget: TimeBudget = UNLIMITED) -> float:
        """Seconds to prepare an image, on the clock of the budget: as measured on all of them, else on a few."""
        return self._measured(encoder, budget)[1]

    def _measured(self, encoder: Encoder, budget: TimeBudget) -> tuple[torch.Tensor, float]:
        """What the encoder takes for the first images, by which its trunk is known again, and seconds per image."""
        mark = encoder.prepare(self.images[:MARKS])
        if self._timed is None or not _equal(mark, self._timed[0]):
            budget.check("measuring what an encoder takes")
            elapsed = stopwatch(budget.clock)
            few = encoder.prepare(self.images[:PROBED])
            self._timed = mark, elapsed() / max(len(few), 1)
        return self._timed


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
