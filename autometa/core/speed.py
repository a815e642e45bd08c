"""How fast a kind of work is, measured over its recent steps, and the safety margin to plan with."""

from __future__ import annotations

from collections import deque

import numpy as np

from autometa.core.time_policy import POLICY

RECENT = 32
"""Steps that are remembered: other load on a machine comes and goes."""
ENOUGH_STEPS = 8
"""Measured steps from which on their own 95th percentile says it."""


class Speed:
    """Seconds per item of one kind of work, over its last `RECENT` steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def __len__(self) -> int:
        """How many steps are remembered."""
        return len(self._steps)

    def add(self, seconds: float, items: int = 1) -> None:
        """Record a step that took `seconds` for this number of items."""
        self._steps.append((seconds, items))

    @property
    def mean_s(self) -> float | None:
        """Seconds per item; None before the first step."""
        if not self._steps:
            return None
        return sum(seconds for seconds, _ in self._steps) / sum(items for _, items in self._steps)

    def percentile_s(self, percent: float) -> float:
        """Seconds per item that `percent` % of the items do not exceed; an item is as slow as its step on average.

        Weighting by items makes small steps count less, whose fixed costs weigh more. ValueError before the first
        step.
        """
        if not self._steps:
            raise ValueError(
                f"no step was added yet, so there is no {percent:g}th percentile; call `add` first"
            )
        rates = np.array([seconds / items for seconds, items in self._steps])
        items = np.array([items for _, items in self._steps])
        order = np.argsort(rates)
        reached = np.cumsum(items[order])
        place = np.searchsorted(reached, reached[-1] * percent / 100)
        return float(rates[order[min(place, len(order) - 1)]])


def estimate_margin(speed: Speed | None) -> float:
    """Factor by which to multiply the mean seconds of this work to plan safely.

    The 95th percentile of the recent steps over their mean, within bounds; `TimePolicy.slowdown` if there are too
    few steps.
    """
    if speed is None or len(speed) < ENOUGH_STEPS or not speed.mean_s:
        return POLICY.slowdown
    return min(max(speed.percentile_s(95) / speed.mean_s, POLICY.least_margin), POLICY.most_margin)
