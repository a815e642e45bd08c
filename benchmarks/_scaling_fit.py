"""Costs of work at several sizes, and the exponent with which they grow."""

from __future__ import annotations

import gc
import math
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _learner_report import Row, row
from scipy.special import stdtrit

LINEAR = 1.05
"""The largest exponent that counts as linear."""
UPPER = 0.5
"""Share of the sizes that exponents are fitted to, the largest ones: below, fixed costs hide the growth."""
LEAST_SIZES = 3
LEAST_S, LEAST_BYTES = 0.002, 8 * 2**20
"""Costs below these are noise, and are left out of a fit."""
CLEAR_PEAK = Path("/proc/self/clear_refs")


@dataclass
class Costs:
    """Seconds of processor time and peak bytes of the parts of an axis, by size. Processor time, of this process and
    of those that it has waited for: other work on the machine changes it less than the time on the wall."""

    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    peaks: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str, size: int) -> Iterator[None]:
        """Around the work of a part at a size; the same again is another measurement."""
        gc.collect()
        held = _clear_peak()
        before = processor_s()
        yield
        self.add(part, size, processor_s() - before)
        if held is not None:
            self.peaks.setdefault(part, {}).setdefault(size, []).append(_memory("VmHWM") - held)

    def add(self, part: str, size: int, seconds: float) -> None:
        """A measurement that was taken elsewhere."""
        self.seconds.setdefault(part, {}).setdefault(size, []).append(seconds)


def processor_s() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def fit_exponent(costs: Mapping[int, Sequence[float]], least: float) -> tuple[float, float] | None:
    """The slope of log cost over log size, by least squares on the upper part of the sizes, and the half-width of its
    95 % interval. The least of several measurements counts: other work only adds. None where fewer than three sizes
    have a cost that is more than noise."""
    best = {size: min(found) for size, found in sorted(costs.items())}
    sizes = list(best)[-max(math.ceil(UPPER * len(best)), LEAST_SIZES) :]
    kept = [size for size in sizes if best[size] >= least]
    if len(kept) < LEAST_SIZES:
        return None
    x = np.log(kept)
    y = np.log([best[size] for size in kept])
    slope, start = np.polyfit(x, y, 1)
    spare = len(x) - 2
    error = math.sqrt(
        float(((y - start - slope * x) ** 2).sum()) / spare / float(((x - x.mean()) ** 2).sum())
    )
    return float(slope), float(stdtrit(spare, 0.975)) * error


def rows_of(axis: str, costs: Costs, note: str) -> list[Row]:
    """The exponent of an axis, of all its parts together, then those of each part, in seconds and in bytes."""
    whole: dict[int, list[float]] = {}
    for by_size in costs.seconds.values():
        for size, found in by_size.items():
            whole.setdefault(size, [0.0])[0] += min(found)
    shared = set.intersection(*(set(by_size) for by_size in costs.seconds.values()))
    found_rows = _row(f"scaling/{axis}", {size: whole[size] for size in shared}, LEAST_S, note)
    for part, by_size in costs.seconds.items():
        found_rows += _row(f"scaling/{axis}/{part}", by_size, LEAST_S, _told(by_size, 1.0, "s"))
    for part, by_size in costs.peaks.items():
        told = _told(by_size, 2**20, "MiB")
        found_rows += _row(f"scaling/{axis}/{part}/bytes", by_size, LEAST_BYTES, told)
    return found_rows


def _row(name: str, costs: Mapping[int, Sequence[float]], least: float, note: str) -> list[Row]:
    fitted = fit_exponent(costs, least)
    if fitted is None:
        return []
    return [row(name, round(fitted[0], 3), "exponent", LINEAR, ci95=round(fitted[1], 3), note=note)]


def _told(by_size: Mapping[int, Sequence[float]], unit: float, name: str) -> str:
    largest = max(by_size)
    return f"{min(by_size[largest]) / unit:.3g} {name} at {largest:,}"


def _clear_peak() -> int | None:
    """Begin to measure the peak of this process anew; what it holds now, or None where that cannot be done."""
    try:
        CLEAR_PEAK.write_text("5", encoding="utf-8")
    except OSError:  # not Linux, or a container that forbids it
        return None
    return _memory("VmRSS")


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def timed(work: Callable[[], object]) -> float:
    """Seconds of processor time that work takes, the least of three times."""
    found = []
    for _ in range(3):
        before = processor_s()
        work()
        found.append(processor_s() - before)
    return min(found)
