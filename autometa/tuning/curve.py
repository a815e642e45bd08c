"""What a grid says: pure functions of its points.

Points of the same repeat answered the same tasks, so that differences between points are means over tasks of paired
differences, with Student-t intervals. These tell the spread over tasks, not over datasets.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

from autometa.core.student_t import quantile95
from autometa.core.units import show_duration
from autometa.tuning.grid import describe
from autometa.tuning.point import Limits, Point, Quantiles

MINUS = "\N{MINUS SIGN}"
LITTLE = 0.5
"""Points of accuracy that are no reason for a larger budget."""


@dataclass(frozen=True)
class Gap:
    """A mean of paired differences in points of accuracy, and the half-width of its 95 % interval (None: of one task
    only)."""

    mean: float
    ci95: float | None

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return math.inf if self.ci95 is None else self.mean + self.ci95

    @property
    def low(self) -> float:
        """The lower end."""
        return -math.inf if self.ci95 is None else self.mean - self.ci95


@dataclass(frozen=True)
class Cell:
    """A budget with all its repeats. Seconds and latencies are means over the repeats, memory is the most of them."""

    submission: str
    limits: Limits
    points: tuple[Point, ...]

    @property
    def scored(self) -> list[Point]:
        """Those of the points that fitted and have a score."""
        return [point for point in self.points if point.has_score]

    @property
    def fits(self) -> bool:
        """Whether every repeat fitted."""
        return bool(self.points) and len(self.scored) == len(self.points)

    @property
    def worst(self) -> Point | None:
        """The repeat that says why it does not fit: one that does not, rather than one that failed."""
        bad = [point for point in self.points if not point.has_score]
        return min(bad, key=lambda point: point.status != "does_not_fit", default=None)

    @property
    def reason(self) -> str:
        """Why it does not fit, or failed."""
        return self.worst.reason if self.worst else ""

    @property
    def failed(self) -> bool:
        """Whether it is not known if it fits, since a run failed."""
        return self.worst is not None and self.worst.status != "does_not_fit"

    @property
    def scores(self) -> list[float]:
        """Of all tasks of all repeats."""
        return [score for point in self.scored for score in point.score_per_task]

    @property
    def score(self) -> float | None:
        """Normalised accuracy in per cent."""
        return fmean(point.score for point in self.scored if point.score is not None) if self.scored else None

    @property
    def ci95(self) -> float | None:
        """Half-width of the 95 % interval of the score over tasks."""
        return _half_width(self.scores)

    @property
    def total_s(self) -> float | None:
        """Seconds of a whole run."""
        return _mean([point.total_s for point in self.points])

    @property
    def peak_bytes(self) -> int | None:
        """The most memory of all repeats."""
        return max((point.peak_bytes for point in self.points if point.peak_bytes), default=None)

    @property
    def model_bytes(self) -> int | None:
        """Size of the largest saved learner."""
        return max((point.model_bytes for point in self.points if point.model_bytes), default=None)

    def p95_ms(self, name: str) -> float | None:
        """The 95th percentile of a kind of call (`adapt_ms`, `predict_ms`), the mean over repeats."""
        found: list[Quantiles | None] = [getattr(point, name) for point in self.points]
        return _mean([each.p95 if each else None for each in found])


def make_cells(points: Sequence[Point]) -> list[Cell]:
    """Cells in the order of the points."""
    groups: dict[tuple[str, Limits], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.submission, point.limits].append(point)
    return [Cell(submission, limits, tuple(found)) for (submission, limits), found in groups.items()]


def largest_of(cells: Sequence[Cell], submission: str) -> Cell | None:
    """The cell with the most time, then the most memory, then the most threads, of those that fit."""
    own = [cell for cell in cells if cell.submission == submission and cell.fits]
    return max(own, key=lambda cell: _size(cell.limits), default=None)


def _size(limits: Limits) -> tuple[float, ...]:
    memory, gpu = limits.memory_budget_bytes or math.inf, limits.gpu_memory_budget_bytes or math.inf
    return (limits.time_budget_s, memory, gpu, limits.threads)


def compare(one: Cell, other: Cell) -> Gap | None:
    """By how many points `one` is better than `other`, on the tasks that both answered; None without such tasks."""
    theirs = {point.repeat: point for point in other.scored}
    differences = [
        a - b
        for point in one.scored
        if point.repeat in theirs and _have_same_tasks(point, theirs[point.repeat])
        for a, b in zip(point.score_per_task, theirs[point.repeat].score_per_task, strict=True)
    ]
    return Gap(fmean(differences), _half_width(differences)) if differences else None


def _have_same_tasks(one: Point, other: Point) -> bool:
    return one.tasks == other.tasks and len(one.score_per_task) == len(other.score_per_task)


def with_gaps(points: Sequence[Point]) -> list[Point]:
    """The points with their paired difference to the largest one of their submission and repeat."""
    cells = make_cells(points)
    found = []
    for point in points:
        largest = largest_of(cells, point.submission)
        gap = None
        if largest is not None and point.has_score:
            gap = compare(Cell(point.submission, point.limits, (point,)), largest)
        ends = {"gap_to_largest": gap.mean if gap else None, "gap_ci95": gap.ci95 if gap else None}
        found.append(point.model_copy(update=ends))
    return found


def find_knee(cells: Sequence[Cell]) -> Cell | None:
    """Where more time begins to pay less: of three or more budgets that differ in time only, those of the largest
    cell, the one that lies farthest above the line from the first to the last, score by doublings of time. None where
    none lies above it by more than `LITTLE` points."""
    if not cells or (largest := largest_of(cells, cells[0].submission)) is None:
        return None
    row = _row_of(cells, largest)
    if len(row) < 3:
        return None
    first, last = row[0], row[-1]
    start, end = (math.log2(cell.limits.time_budget_s) for cell in (first, last))

    def above(cell: Cell) -> float:
        share = (math.log2(cell.limits.time_budget_s) - start) / (end - start)
        line = (first.score or 0.0) + share * ((last.score or 0.0) - (first.score or 0.0))
        return (cell.score or 0.0) - line

    best = max(row[1:-1], key=above)
    return best if above(best) > LITTLE else None


def _row_of(cells: Sequence[Cell], like: Cell) -> list[Cell]:
    """Cells that fit and differ from one in time only, ascending."""
    row = [cell for cell in cells if cell.fits and _others(cell) == _others(like)]
    return sorted(row, key=lambda cell: cell.limits.time_budget_s)


def _others(cell: Cell) -> tuple[object, ...]:
    limits = cell.limits
    return cell.submission, limits.memory_budget_bytes, limits.gpu_memory_budget_bytes, limits.threads


def target_of(text: str, cells: Sequence[Cell]) -> float | None:
    """A target as a score in per cent: `60`, or `95%-of-best`. None where there is no best one."""
    share, _, of_best = text.partition("%")
    if not of_best:
        return float(text)
    best = max((cell.score for cell in cells if cell.fits and cell.score is not None), default=None)
    if best is None:
        return None
    return (
        float(share) / 100 * best if best > 0 else best
    )  # a share of less than nothing would be more than it


def smallest_for(cells: Sequence[Cell], target: float) -> Cell | None:
    """The smallest budget whose score reaches a target."""
    return smallest_of([cell for cell in cells if cell.score is not None and cell.score >= target])


def smallest_of(cells: Sequence[Cell]) -> Cell | None:
    """The cell with the least time, then memory, then threads, of those that fit; of equal ones that which took less
    time."""
    fitting = [cell for cell in cells if cell.fits]
    return min(fitting, key=lambda cell: (*_size(cell.limits), cell.total_s or math.inf), default=None)


def is_smaller(one: Cell, other: Cell) -> bool:
    """Whether it has less time, or as much and less memory, or as much of both and fewer threads."""
    return _size(one.limits) < _size(other.limits)


@dataclass(frozen=True)
class Step:
    """From one time budget to the next one: the gain in points, and that per doubling of the time."""

    start: Cell
    end: Cell
    gain: Gap

    @property
    def doublings(self) -> float:
        """How often the time doubles."""
        return math.log2(self.end.limits.time_budget_s / self.start.limits.time_budget_s)

    @property
    def per_doubling(self) -> Gap:
        """The gain for twice the time."""
        half = None if self.gain.ci95 is None else self.gain.ci95 / self.doublings
        return Gap(self.gain.mean / self.doublings, half)

    @property
    def is_useless(self) -> bool:
        """Whether the interval says that more time is no reason: it gains little at most."""
        return self.gain.high < LITTLE

    def __str__(self) -> str:
        """What it says, where more is not better."""
        end, others = show_duration(self.end.limits.time_budget_s), describe(self.start.limits)
        return (
            f"More is not better here: {end} instead of {others} gains between {signed(self.gain.low)} and "
            f"{signed(self.gain.high)} points"
        )


def list_steps(cells: Sequence[Cell]) -> list[Step]:
    """All steps between neighbours that differ in time only."""
    rows: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.fits:
            rows[_others(cell)].append(cell)
    steps = []
    for row in rows.values():
        row.sort(key=lambda cell: cell.limits.time_budget_s)
        for start, end in pairwise(row):
            if (gain := compare(end, start)) is not None:
                steps.append(Step(start, end, gain))
    return steps


def signed(value: float) -> str:
    """A gain in points with a true minus sign; without a sign if it rounds to zero."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def _half_width(values: Sequence[float]) -> float | None:
    """Of the 95 % Student-t interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return quantile95(len(values)) * stdev(values) / math.sqrt(len(values))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
