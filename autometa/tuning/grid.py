"""Which points a grid has, in which order they run, and what that is predicted to take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from autometa.bundles.shipped import BASELINES, find_bundle
from autometa.core.units import show_bytes, show_duration
from autometa.tuning.options import TuneOptions
from autometa.tuning.point import Limits, Point

SHARING = "autometa"
"""The submission whose points share work."""
SHARED_SHARE, POINT_S = 0.35, 15.0
"""What a further point takes where work is shared, until one has run: this share of its budget, and a start."""


def shares_work(submission: str) -> bool:
    """Whether a submission is the baseline that comes with this project: no other one, not even a folder of its name
    in the working directory, gets a folder that its runs have in common, or is known to be the same run."""
    return submission == SHARING and find_bundle(SHARING).resolve() == (BASELINES / SHARING).resolve()


class Place(Limits):
    """A point that is asked for."""

    submission: str = SHARING
    repeat: int = 0

    @property
    def name(self) -> str:
        """What its folder and file are called."""
        parts = [_file_name(self.submission), show_duration(self.time_budget_s)]
        parts += [show_bytes(self.memory_budget_bytes)] if self.memory_budget_bytes else []
        parts += [f"gpu{show_bytes(self.gpu_memory_budget_bytes)}"] if self.gpu_memory_budget_bytes else []
        return "-".join([*parts, f"{self.threads}t", f"r{self.repeat}"])

    @classmethod
    def of(cls, point: Point) -> Place:
        """The place of a point."""
        return cls(**{name: getattr(point, name) for name in cls.model_fields})


def _file_name(submission: str) -> str:
    """The name of a baseline, or that of a bundle with a digest of its path."""
    path = Path(submission)
    if submission == path.name:
        return submission
    return f"{path.name}-{hashlib.blake2b(submission.encode(), digest_size=3).hexdigest()}"


def describe(limits: Limits, *, threads: bool = True) -> str:
    """The budgets of a point for people."""
    parts = [show_duration(limits.time_budget_s)]
    parts += [show_bytes(limits.memory_budget_bytes)] if limits.memory_budget_bytes else []
    parts += (
        [f"{show_bytes(limits.gpu_memory_budget_bytes)} on the GPU"] if limits.gpu_memory_budget_bytes else []
    )
    if threads:
        parts.append(f"{limits.threads} thread{'s' if limits.threads != 1 else ''}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Dropped:
    """A point that does not run, and why."""

    place: Place
    reason: str


@dataclass(frozen=True)
class GridPlan:
    """The points in the order in which they run, with the seconds that each is predicted to take here, and those that
    do not run. `check_s`: of the run that checks what is recommended."""

    places: tuple[Place, ...]
    seconds: tuple[float, ...]
    check_s: float
    dropped: tuple[Dropped, ...] = field(default=())

    @property
    def total_s(self) -> float:
        """Of all points and the check."""
        return sum(self.seconds) + (self.check_s if self.places else 0.0)


def list_places(options: TuneOptions, threads: int) -> list[Place]:
    """All points that are asked for, each once; the largest of a submission and repeat comes first. `threads`: as
    many processors as may be used, where none are named. More than those make no further points."""
    memory: Iterable[int | None] = options.memory_budget or (None,)
    gpu: Iterable[int | None] = options.gpu_memory_budget or (None,)
    counts = {min(count, threads) for count in options.threads or (threads,)}
    found = [
        Place(
            submission=submission,
            repeat=repeat,
            time_budget_s=time_s,
            memory_budget_bytes=n_bytes,
            gpu_memory_budget_bytes=gpu_bytes,
            threads=count,
        )
        for submission, repeat, time_s, n_bytes, gpu_bytes, count in product(
            options.submission, range(options.repeats), options.time_budget, memory, gpu, counts
        )
    ]
    order = {name: place for place, name in enumerate(options.submission)}
    return sorted(
        dict.fromkeys(found), key=lambda place: (order[place.submission], place.repeat, *_size(place))
    )


def _size(limits: Limits) -> tuple[float, ...]:
    """Ascending from the largest."""
    return (
        -limits.time_budget_s,
        -(limits.memory_budget_bytes or 0),
        -(limits.gpu_memory_budget_bytes or 0),
        -limits.threads,
    )


def make_plan(places: Sequence[Place], within_s: float | None = None) -> GridPlan:
    """Points that fit in the time for all of them. The largest budgets are left out first, the last repeats of each
    before the first one."""
    kept, dropped = list(places), list[Dropped]()
    while kept and within_s is not None:
        costs = predict_costs(kept)
        total_s = sum(costs) + _check_s(kept)
        if total_s <= within_s:
            break
        worst = max(range(len(kept)), key=lambda n: (kept[n].time_budget_s, kept[n].repeat, -n))
        place = kept.pop(worst)
        dropped.append(
            Dropped(
                place,
                f"with it all points would take about {show_seconds(total_s)}, "
                f"--within allows {show_seconds(within_s)}",
            )
        )
    return GridPlan(tuple(kept), tuple(predict_costs(kept)), _check_s(kept), tuple(dropped))


def predict_costs(places: Sequence[Place]) -> list[float]:
    """Seconds that each point is predicted to take here, in order: the first of a kind runs in full, the others take
    over what it has done."""
    costs, seen = list[float](), set[tuple[str, int]]()
    for place in places:
        kind = (place.submission, place.threads)
        shares = kind in seen and shares_work(place.submission)
        share_s = min(SHARED_SHARE * place.time_budget_s + POINT_S, place.time_budget_s)
        costs.append(share_s if shares else place.time_budget_s)
        seen.add(kind)
    return costs


def _check_s(places: Sequence[Place]) -> float:
    return max((place.time_budget_s for place in places), default=0.0)


def show_seconds(seconds: float) -> str:
    """A time for people, not to the second where it is long."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
