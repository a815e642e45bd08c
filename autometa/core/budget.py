"""Budgets of time and memory: the only module that reads clocks and psutil."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from autometa.core import clock as own_clock  # budgets have arguments of this name
from autometa.core.cgroups import memory_limit
from autometa.core.errors import BudgetExhausted

SAFE_SHARE = 0.8
"""Share of the free memory to use if no memory budget is given."""
SMALL_BYTES = 1_500_000_000
"""Below this, a run takes care of memory first: images are in files, batches are small, fewer modes answer."""
WALL_PER_CPU_SECOND = 1.5
"""Seconds that pass for each second of processor time while a program starts."""


class TimeBudget:
    """A deadline on a monotonic clock; `clock` returns seconds and can be replaced in tests."""

    def __init__(self, deadline: float, clock: Callable[[], float] = own_clock.monotonic) -> None:
        self.deadline = deadline
        self.clock = clock

    @classmethod
    def of(cls, seconds: float, clock: Callable[[], float] = own_clock.monotonic) -> TimeBudget:
        """A budget of this many seconds from now."""
        return cls(clock() + seconds, clock)

    def left_s(self) -> float:
        """Seconds until the deadline, negative once it is past."""
        return self.deadline - self.clock()

    def share(self, fraction: float, *, reserve_s: float = 0.0) -> TimeBudget:
        """A budget of this fraction of the time left after `reserve_s`; never ends after its parent."""
        return TimeBudget(self.clock() + max(self.left_s() - reserve_s, 0.0) * fraction, self.clock)

    def fits(self, cost_s: float) -> bool:
        """Whether a step of this predicted cost would end before the deadline."""
        return cost_s <= self.left_s()

    def check(self, what: str) -> None:
        """Raise BudgetExhausted if the deadline has passed; `what` names the step in the message."""
        if self.left_s() <= 0:
            raise BudgetExhausted(f"{what}: the time budget ended {-self.left_s():.1f} s ago")


UNLIMITED = TimeBudget(float("inf"))
"""For callers without a deadline."""


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that the processes of a run may use together."""

    total_bytes: int

    @classmethod
    def of_machine(cls) -> MemoryBudget:
        """A safe share of the memory that is free now, within the limit of the container."""
        return cls(int(SAFE_SHARE * min(psutil.virtual_memory().available, container_bytes())))

    @property
    def is_small(self) -> bool:
        """Whether it is so small that memory decides what can be done."""
        return self.total_bytes < SMALL_BYTES

    def left_bytes(self) -> int:
        """Bytes left after the memory of this process."""
        return self.total_bytes - own_bytes()

    def fits(self, n_bytes: int) -> bool:
        """Whether a step that needs about this much memory may start."""
        return n_bytes <= self.left_bytes()


def own_bytes() -> int:
    """Bytes of memory of this process alone, without mapped files and shared pages."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def children_bytes() -> int:
    """Bytes of memory of all processes that this one has started, and of theirs, without mapped files and shared
    pages: what a submission holds."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended, or may not be looked at
            info = process.memory_info()
            total += int(info.rss - getattr(info, "shared", 0))
    return total


def container_bytes() -> int:
    """Memory limit of the container, or all memory of the machine if there is none."""
    total = psutil.virtual_memory().total
    return min(total, memory_limit() or total)


@dataclass(frozen=True)
class Limits:
    """Limits of a run: `train` is the deadline of meta-training, `run` that of meta-test."""

    train: TimeBudget
    run: TimeBudget
    memory: MemoryBudget


def now() -> float:
    """The clock of all work that is given no other."""
    return own_clock.perf_counter()


def stopwatch(clock: Callable[[], float] | None = None) -> Callable[[], float]:
    """Start a stopwatch: a function that returns the seconds since this call, on `now` where no clock is given."""

    def read() -> float:
        return clock() if clock else now()

    start = read()
    return lambda: read() - start


def _measure_start() -> float:
    """Monotonic time at which this program began.

    The start time of the process is too early if a shell replaced itself by this program, as `sh -c "install && run"`
    does. Then the process has waited for children before, and the processor time tells the age. So it does where
    there is no table of processes.
    """
    age_s = WALL_PER_CPU_SECOND * time.process_time()
    with contextlib.suppress(psutil.NoSuchProcess):  # no /proc
        elapsed_s = max(time.time() - psutil.Process().create_time(), 0.0)
        has_waited_for_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt > 0
        age_s = min(age_s, elapsed_s) if has_waited_for_children else elapsed_s
    return time.monotonic() - age_s


_START = _measure_start()  # on import, since importing torch starts child processes


def process_age_s() -> float:
    """Seconds since this program began: starting Python and importing everything, and what was charged."""
    return own_clock.monotonic() - _START
