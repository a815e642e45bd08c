"""Time, memory and the machine: the only place that reads clocks, psutil, cgroups and GPU memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from autometa.core.errors import BudgetExhausted

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
WALL_TO_PROCESSOR = 1.5
"""Seconds that starting a program takes for a second of the processor."""
SAFE_SHARE = 0.8
"""Share of the free memory that is taken where no memory budget is given."""


class TimeBudget:
    """A deadline on a monotonic clock (`clock` gives seconds and can be replaced in tests)."""

    def __init__(self, deadline: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.deadline = deadline
        self.clock = clock

    @classmethod
    def of(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> TimeBudget:
        """A budget of so many seconds from now."""
        return cls(clock() + seconds, clock)

    def left_s(self) -> float:
        """Seconds until the deadline, negative once it is past."""
        return self.deadline - self.clock()

    def share(self, fraction: float, *, reserve_s: float = 0.0) -> TimeBudget:
        """A budget that ends after `fraction` of what is left besides `reserve_s`; never after its parent."""
        return TimeBudget(self.clock() + max(self.left_s() - reserve_s, 0.0) * fraction, self.clock)

    def fits(self, cost_s: float) -> bool:
        """Whether a step of this predicted cost ends before the deadline."""
        return cost_s <= self.left_s()

    def check(self, what: str) -> None:
        """BudgetExhausted if the deadline is past."""
        if self.left_s() <= 0:
            raise BudgetExhausted(f"{what}: the time budget ended {-self.left_s():.1f} s ago")


UNLIMITED = TimeBudget(float("inf"))
"""For callers who have no deadline."""


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that the processes of a run may hold together."""

    total_bytes: int

    @classmethod
    def of_machine(cls) -> MemoryBudget:
        """A safe share of what is free now, within the container's limit."""
        return cls(int(SAFE_SHARE * min(psutil.virtual_memory().available, _container_bytes())))

    def left_bytes(self) -> int:
        """What is left after this process's own memory."""
        return self.total_bytes - own_bytes()

    def fits(self, n_bytes: int) -> bool:
        """Whether a step that takes about so much memory may be begun."""
        return n_bytes <= self.left_bytes()


@dataclass(frozen=True)
class Limits:
    """`train` ends when meta-training must be over at the latest, `run` when meta-test must be."""

    train: TimeBudget
    run: TimeBudget
    memory: MemoryBudget


def own_bytes() -> int:
    """Memory of this process alone: mapped files and shared pages cost nobody."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def _container_bytes() -> int:
    for name in CGROUP_LIMITS:
        file = Path(name)
        if file.exists() and (text := file.read_text().strip()).isdigit():
            return int(text)
    return psutil.virtual_memory().total


@dataclass(frozen=True)
class Machine:
    """What a run computes on."""

    device: str
    cores: int
    memory_bytes: int

    @classmethod
    def detect(cls) -> Machine:
        """This machine; a GPU where torch sees one."""
        import torch  # noqa: PLC0415 - heavy, and not needed by those who only read clocks

        device = "cuda" if torch.cuda.is_available() else "cpu"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(device, cores, min(psutil.virtual_memory().total, _container_bytes()))


def _age_s() -> float:
    """Age of this program. A process keeps its start time when a shell gives way to a program in it, as
    `sh -c "install && run"` does: where others were waited for before, processor time tells the age."""
    age_s = max(time.time() - psutil.Process().create_time(), 0.0)
    if resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt:
        age_s = min(age_s, WALL_TO_PROCESSOR * time.process_time())
    return age_s


_BEGAN = time.monotonic() - _age_s()  # now, as importing torch starts processes too


def process_age_s() -> float:
    """Seconds since this process began: what starting Python and importing everything has cost."""
    return time.monotonic() - _BEGAN


def stopwatch(clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """A function that gives the seconds since this call."""
    began = clock()
    return lambda: clock() - began
