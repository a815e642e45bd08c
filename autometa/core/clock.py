"""The clock of a process: the seconds that pass, and those that it is charged for work that an earlier run has done.

A run of a grid of budgets may take features and trained networks from an earlier one (see `autometa.core.sharing`).
It must plan and choose as if it had done the work. So it is charged what the work took, and every budget, stopwatch
and log reads this clock. Without sharing nothing is charged, and this is the time of the system.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Charge:
    """Seconds that a process was charged; `on_change` hears of each new sum."""

    seconds: float = 0.0
    on_change: Callable[[float], None] | None = None

    def add(self, seconds: float) -> None:
        """Charge more; negative seconds were spent on what a run alone would not have done. The sum is never less
        than 0, so that no deadline comes later than it really does."""
        self.seconds = max(self.seconds + seconds, 0.0)
        if self.on_change is not None:
            self.on_change(self.seconds)


CHARGE = Charge()
"""Of this process."""


def monotonic() -> float:
    """`time.monotonic()`, on which deadlines are, with what was charged."""
    return time.monotonic() + CHARGE.seconds


def perf_counter() -> float:
    """`time.perf_counter()`, on which work is timed, with what was charged."""
    return time.perf_counter() + CHARGE.seconds


@contextmanager
def taking(seconds: float) -> Iterator[None]:
    """Around work that is to take so many seconds on this clock, however long it takes."""
    began = perf_counter()
    try:
        yield
    finally:
        CHARGE.add(seconds - (perf_counter() - began))
