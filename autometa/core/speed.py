"""How fast a kind of work is, measured over its recent steps, and the safety margin to plan with."""

from __future__ import annotations

from collections import deque

import numpy as np

RECENT = 32
"""Number of steps to remember. Older ones are forgotten, since the load of a machine changes."""
SLOWDOWN = 1.3
"""Margin to plan with until enough steps are measured: a step may be this much slower than measured."""
ENOUGH_STEPS = 8
"""Number of measured steps from which their own 95th percentile gives the margin."""
LEAST_MARGIN, MOST_MARGIN = 1.1, 1.6
"""Bounds of the measured margin, as multiples of the mean."""


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

    The 95th percentile of the recent steps over their mean, within bounds; `SLOWDOWN` if there are too few steps.
    """
    if speed is None or len(speed) < ENOUGH_STEPS or not speed.mean_s:
        return SLOWDOWN
    return min(max(speed.percentile_s(95) / speed.mean_s, LEAST_MARGIN), MOST_MARGIN)
