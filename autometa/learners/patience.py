"""What a training does that finds nothing better: it goes back with a smaller rate, and ends in the end."""

from __future__ import annotations

from dataclasses import dataclass

from autometa.core.time_policy import POLICY
from autometa.learners.checkpoint import Progress

PERFECT = 5
"""Validations without a mistake after which there is nothing left to learn from."""
REDUCED, LEAST_RATE = 0.3, 0.01
"""Of the rate: what is left of it where no better state is found for long, and below which training ends."""
IMPATIENT = 0.25
"""Of what may pass of a training without a better state, what may pass once the rate was reduced."""


@dataclass(frozen=True)
class Patience:
    """`validations` without a better state, which also took a share of the steps or of the time where these are
    `bounded`, are too many; None: never."""

    validations: int | None
    bounded: bool

    def why_to_end(self, progress: Progress, best: float) -> str:
        """A reason to end before all steps are made and all time is used, or nothing; `best`: mean accuracy."""
        if self.validations is None:
            return ""
        if best == 1.0 and progress.stale >= PERFECT:
            return "every validation episode is right"
        return "no better state for long" if progress.rate_scale < LEAST_RATE else ""

    def is_lost(self, progress: Progress, share_done: float) -> bool:
        """Whether to go back to the best state."""
        if self.validations is None or progress.stale < self.validations:
            return False
        share = POLICY.patient_share * (1.0 if progress.rate_scale == 1.0 else IMPATIENT)
        return not self.bounded or share_done - progress.best_at > share

    @staticmethod
    def reduce(progress: Progress, share_done: float) -> None:
        """Go on with a smaller rate, and wait anew."""
        progress.rate_scale *= REDUCED
        progress.stale, progress.best_at = 0, share_done
