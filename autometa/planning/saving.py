"""What saving a learner takes: seconds by the bytes that have to be written."""

from __future__ import annotations

from autometa.core.speed import Speed, estimate_margin

GUESS_S = 1e-8
"""Seconds per byte to hash, copy and write, until it was measured."""
LEAST_S = 0.1
"""For the description, and for what has to be deleted."""
MEASURED_BYTES = 2**20
"""Saving less than this says nothing about bytes."""


class SavingCosts:
    """Measured seconds per byte of the learners that a run has saved."""

    def __init__(self) -> None:
        self._speed = Speed()

    def add(self, seconds: float, n_bytes: int) -> None:
        """A learner was saved in so many seconds, of which so many bytes were not on disk before."""
        if n_bytes >= MEASURED_BYTES:
            self._speed.add(max(seconds - LEAST_S, 0.0), n_bytes)

    def seconds(self, n_bytes: float) -> float:
        """Seconds to reserve for saving a learner of which so many bytes are not on disk."""
        byte_s = self._speed.mean_s
        return LEAST_S + estimate_margin(self._speed) * (GUESS_S if byte_s is None else byte_s) * n_bytes
