"""Images as several encoders take them, so that a frozen trunk that they share runs over each image once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autometa.core.budget import UNLIMITED, TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted
from autometa.core.machine import starts_cold, time_settled
from autometa.core.time_policy import POLICY
from autometa.learners.encoder import GPU_CHUNK, Encoder, Images, get_device
from autometa.learners.storage import MEMORY, Storage

PROBE_IMAGES = 24
"""Images from which the time for all is predicted."""
FINGERPRINT_IMAGES = 2
"""Images by whose inputs a trunk is recognised."""


@dataclass(frozen=True)
class _Measured:
    """What an encoder takes for the first images, by which its trunk is recognised, and seconds an image."""

    fingerprint: torch.Tensor
    image_s: float

    def is_of(self, fingerprint: torch.Tensor) -> bool:
        """Whether it was measured with the trunk that gave this fingerprint."""
        own = self.fingerprint
        return own.dtype == fingerprint.dtype and torch.equal(own, fingerprint)


class PreparedImages:
    """Images uint8 [n, 3, h, w] and what the latest encoder took for them, kept in `storage` for the next one."""

    def __init__(self, images: Images, storage: Storage = MEMORY) -> None:
        self.images = images
        self._storage = storage
        self._kept: tuple[torch.Tensor, _Measured] | None = None
        self._latest: _Measured | None = None

    def __len__(self) -> int:
        return len(self.images)

    def inputs_for(self, encoder: Encoder, budget: TimeBudget = UNLIMITED) -> torch.Tensor:
        """What the encoder takes for all images [n, ...], the same tensor as before where the encoder has the same
        trunk. BudgetExhausted where time or room is too short, before much of either is spent."""
        measured = self._measure(encoder, budget)
        if self._kept is not None and self._kept[1].is_of(measured.fingerprint):
            return self._kept[0]
        self._kept = None  # before others are made: there may be room for one only
        needed_s = POLICY.slowdown * measured.image_s * len(self)
        if not budget.fits(needed_s):
            raise BudgetExhausted(
                f"{len(self)} images take {needed_s:.1f} s to prepare, {max(budget.left_s(), 0):.1f} s are left"
            )
        elapsed = stopwatch(budget.clock)
        inputs = encoder.prepare(self.images, budget, self._storage)
        self._latest = _Measured(measured.fingerprint, elapsed() / len(self))
        self._kept = inputs, self._latest
        return inputs

    def image_s(self, encoder: Encoder, budget: TimeBudget = UNLIMITED) -> float:
        """Seconds to prepare an image, on the clock of the budget: as measured on all of them, else on a few."""
        return self._measure(encoder, budget).image_s

    def image_bytes(self, encoder: Encoder, budget: TimeBudget = UNLIMITED) -> int:
        """Bytes of what the encoder takes for one image."""
        return int(self._measure(encoder, budget).fingerprint[0].nbytes)

    def _measure(self, encoder: Encoder, budget: TimeBudget) -> _Measured:
        """The latest measurement where the encoder has the same trunk, else one on a few images."""
        fingerprint = encoder.prepare(self.images[:FINGERPRINT_IMAGES])
        if self._latest is None or not self._latest.is_of(fingerprint):
            budget.check("measuring what an encoder takes")
            few, device = self.images[:PROBE_IMAGES], get_device(encoder).type
            if starts_cold(device) and len(few):
                few = few[np.arange(GPU_CHUNK) % len(few)]  # its speed is that of full chunks
            seconds = time_settled(lambda: encoder.prepare(few), device, budget.clock)
            self._latest = _Measured(fingerprint, seconds / max(len(few), 1))
        return self._latest
