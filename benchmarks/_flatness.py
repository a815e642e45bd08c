"""Whether what a program holds stays flat: samples of its processes over its work, and the slope of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import psutil
from _learner_report import Row, row

from autometa.core.repeated import repeated
from autometa.core.student_t import quantile95

BLOCKS = 20
"""Samples that follow each other are alike, so the slope is that of the medians of so many blocks."""
WARM_UP = 0.2
"""Share of the work at the start that is left out: imports, caches and pools of memory fill up then."""
MB = 1e6


@dataclass(frozen=True)
class Held:
    """What processes hold: memory of their own in MB, open files, threads, and how many there are."""

    mb: float
    descriptors: float
    threads: float
    processes: float

    @classmethod
    def of(cls, processes: Sequence[psutil.Process]) -> Held:
        """Of these processes together; those that have ended hold nothing."""
        total = np.zeros(4)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                own = process.memory_full_info().uss / MB
                total += own, process.num_fds(), process.num_threads(), 1
        return cls(*total.tolist())


@dataclass(frozen=True)
class Slope:
    """Growth per step of the work, and the half-width of its 95 % interval."""

    value: float
    ci95: float

    @classmethod
    def of(cls, steps: Sequence[float], values: Sequence[float]) -> Slope | None:
        """Of values at these steps, after the warm-up; None with fewer than three blocks."""
        x, y = np.asarray(steps, float), np.asarray(values, float)
        late = x >= x.min() + WARM_UP * (x.max() - x.min()) if len(x) else x.astype(bool)
        parts = [each for each in np.array_split(np.flatnonzero(late), BLOCKS) if len(each)]
        if len(parts) < 3:
            return None
        x, y = (
            np.array([np.median(x[each]) for each in parts]),
            np.array([np.median(y[each]) for each in parts]),
        )
        spread = ((x - x.mean()) ** 2).sum()
        if not spread:
            return None
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
        rest = y - y.mean() - slope * (x - x.mean())
        error = np.sqrt((rest**2).sum() / (len(x) - 2) / spread)
        return cls(slope, float(quantile95(len(x) - 1) * error))  # two values were fitted


@dataclass(frozen=True)
class Verdict:
    """What is held at the end of the warm-up and at the end, and the slope between."""

    first: float
    last: float
    slope: Slope | None

    @classmethod
    def of(cls, steps: Sequence[float], values: Sequence[float]) -> Verdict:
        """Of samples; medians of a tenth of them at either end."""
        late = [
            v
            for s, v in zip(steps, values, strict=True)
            if s >= min(steps) + WARM_UP * (max(steps) - min(steps))
        ]
        few = max(len(late) // 10, 1)
        return cls(float(np.median(late[:few])), float(np.median(late[-few:])), Slope.of(steps, values))

    def grows(self, steps: float, slack: float) -> bool:
        """Whether more than `slack` is gained over so many steps, even at the lower end of the interval."""
        return self.slope is not None and (self.slope.value - self.slope.ci95) * steps > slack


@dataclass
class Sampler:
    """Samples in another thread: `step` tells how much of the work is done, `parts` name the processes to look at."""

    step: Callable[[], float]
    parts: dict[str, Callable[[], Sequence[psutil.Process]]]
    count_files: Callable[[], int] = lambda: 0
    every_s: float = 1.0

    def __post_init__(self) -> None:
        self.steps: list[float] = []
        self.held: dict[str, list[Held]] = {name: [] for name in self.parts}
        self.files: list[int] = []

    def sample(self) -> None:
        """One sample."""
        found = {name: Held.of(find()) for name, find in self.parts.items()}
        if any(not held.processes for held in found.values()):
            return  # it has not begun, or is over
        self.steps.append(self.step())
        self.files.append(self.count_files())
        for name, held in found.items():
            self.held[name].append(held)

    def running(self) -> AbstractContextManager[None]:
        """Sample while the block runs."""
        return repeated(self.sample, self.every_s)

    def verdicts(self, last: float) -> dict[str, Verdict]:
        """By `PART/WHAT`, and `files`, from the first step that was done to the `last` one. Empty without samples."""
        kept = [place for place, step in enumerate(self.steps) if 0 < step < last]
        steps = [self.steps[place] for place in kept]
        if not steps:
            return {}
        found = {
            f"{part}/{what.name}": Verdict.of(steps, [getattr(held[place], what.name) for place in kept])
            for part, held in self.held.items()
            for what in fields(Held)
        }
        return found | {"files": Verdict.of(steps, [self.files[place] for place in kept])}


def growth_row(name: str, verdict: Verdict, unit: str, *, per: float, steps: float, slack: float) -> Row:
    """The growth per so many steps as a row of a report; its note says whether it is flat over all `steps`."""
    slope = verdict.slope
    note = f"{verdict.first:.1f} after the warm-up, {verdict.last:.1f} at the end"
    if slope is None:
        return row(name, verdict.last - verdict.first, unit, note=f"{note}; too few samples for a slope")
    state = "GROWS" if verdict.grows(steps, slack) else "flat"
    return row(name, slope.value * per, unit, ci95=slope.ci95 * per, note=f"{state}: {note}")


def count_entries(*folders: Path) -> int:
    """Files and folders in and below these folders, as far as they can be read."""
    return sum(1 for folder in folders for _ in folder.rglob("*"))
