"""Geometry of the plots of the page: places in percent, so that they fit any width and both themes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from autometa.core.units import show_duration
from autometa.tuning.budget_file import Budget
from autometa.tuning.collect import show_budget
from autometa.tuning.curve import Cell
from autometa.tuning.predicted import Prediction

SERIES = 6
"""Colours that the page has."""
PAD = 0.06
"""Of the range of times, left free at either side."""


@dataclass(frozen=True)
class Dot:
    """A budget: `y` at its score, the interval from `top` to `bottom`."""

    x: float
    y: float
    top: float
    bottom: float
    label: str
    marked: bool


@dataclass(frozen=True)
class Line:
    """Budgets that differ in time only, ascending; `colour` is the number of a colour of the page. `predicted`: of
    another machine."""

    name: str
    colour: int
    dots: tuple[Dot, ...]
    predicted: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines, ticks (text and place), the places of budgets that do not fit, and that of the target."""

    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[str, float], ...]
    y_ticks: tuple[tuple[str, float], ...]
    misfits: tuple[tuple[float, str], ...]
    target: float | None


@dataclass(frozen=True)
class Axes:
    """Ranges: doublings of seconds from `start` to `end`, and scores from `low` to `high`."""

    start: float
    end: float
    low: float
    high: float

    def x(self, time_s: float) -> float:
        """Percent from the left."""
        return round(100 * (math.log2(time_s) - self.start) / (self.end - self.start), 2)

    def y(self, score: float) -> float:
        """Percent from the top."""
        share = (self.high - min(max(score, self.low), self.high)) / (self.high - self.low)
        return round(100 * share, 2)


def draw(budget: Budget) -> Plot | None:
    """Score against time budget, a line for each submission, memory and number of threads; None without scores."""
    cells = budget.cells
    fitting = [cell for cell in cells if cell.fits and cell.score is not None]
    if not fitting:
        return None
    axes = _axes(cells, fitting, budget)
    rows: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in fitting:
        limits = cell.limits
        rows[
            cell.submission, limits.memory_budget_bytes, limits.gpu_memory_budget_bytes, limits.threads
        ].append(cell)
    lines = [_line(row, number, list(rows), axes, budget) for number, row in enumerate(rows.values())]
    lines += [_predicted(curve, len(lines) + n, axes) for n, curve in enumerate(budget.predicted)]
    times = sorted({cell.limits.time_budget_s for cell in cells})
    return Plot(
        lines=tuple(lines),
        x_ticks=tuple((show_duration(time_s), axes.x(time_s)) for time_s in times),
        y_ticks=_y_ticks(axes),
        misfits=tuple((axes.x(c.limits.time_budget_s), c.reason) for c in cells if not c.fits),
        target=None if budget.target is None else axes.y(budget.target),
    )


def _axes(cells: Sequence[Cell], fitting: Sequence[Cell], budget: Budget) -> Axes:
    places = [math.log2(cell.limits.time_budget_s) for cell in cells]
    pad = max(PAD * (max(places) - min(places)), 0.3)
    ends = [(cell.score or 0.0) + sign * (cell.ci95 or 0.0) for cell in fitting for sign in (-1, 1)]
    ends += [point.score for curve in budget.predicted for point in curve.points if point.score is not None]
    ends += [budget.target] if budget.target is not None else []
    low, high = min(ends), max(ends)
    if high - low < 1.0:  # all the same, such as without any error
        low, high = low - 1.0, high + 1.0
    step = _step(max(high - low, 1.0))
    return Axes(
        min(places) - pad, max(places) + pad, math.floor(low / step) * step, math.ceil(high / step) * step
    )


def _step(span: float) -> float:
    """Between ticks: 1, 2 or 5 times a power of ten, for four or five of them."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * times for times in (1, 2, 5, 10) if span / (power * times) <= 5)


def _y_ticks(axes: Axes) -> tuple[tuple[str, float], ...]:
    step = _step(axes.high - axes.low)
    count = round((axes.high - axes.low) / step)
    return tuple((f"{axes.low + n * step:g}", axes.y(axes.low + n * step)) for n in range(count + 1))


def _line(
    row: Sequence[Cell], number: int, keys: Sequence[tuple[object, ...]], axes: Axes, budget: Budget
) -> Line:
    found = budget.recommendation
    marked = None if found is None else (found.submission, found.limits)
    dots = [
        _dot(cell, axes, marked=(cell.submission, cell.limits) == marked)
        for cell in sorted(row, key=lambda cell: cell.limits.time_budget_s)
    ]
    return Line(_name(row[0], keys), number % SERIES, tuple(dots))


def _dot(cell: Cell, axes: Axes, *, marked: bool) -> Dot:
    score, half = cell.score or 0.0, cell.ci95 or 0.0
    width = f" ± {half:.1f}" if half else ""
    label = f"{show_duration(cell.limits.time_budget_s)}: {score:.1f}{width} %"
    return Dot(
        axes.x(cell.limits.time_budget_s),
        axes.y(score),
        axes.y(score + half),
        axes.y(score - half),
        label,
        marked,
    )


def _name(cell: Cell, keys: Sequence[tuple[object, ...]]) -> str:
    """What tells a line from the others."""
    limits = cell.limits
    parts = (
        cell.submission,
        show_budget(limits.memory_budget_bytes),
        f"{show_budget(limits.gpu_memory_budget_bytes)} on the GPU",
        f"{limits.threads} thread{'s' if limits.threads != 1 else ''}",
    )
    different = [len({key[place] for key in keys}) > 1 for place in range(len(parts))]
    return ", ".join(part for part, shown in zip(parts, different, strict=True) if shown) or cell.submission


def _predicted(curve: Prediction, number: int, axes: Axes) -> Line:
    points = [point for point in curve.points if point.score is not None]
    dots = [
        Dot(
            axes.x(point.time_budget_s),
            axes.y(point.score or 0.0),
            axes.y((point.score or 0.0) + (point.ci95 or 0.0)),
            axes.y((point.score or 0.0) - (point.ci95 or 0.0)),
            f"{show_duration(point.time_budget_s)}: {point.score:.1f} % predicted",
            marked=False,
        )
        for point in sorted(points, key=lambda point: point.time_budget_s)
    ]
    return Line(f"{curve.profile.name}, predicted", number % SERIES, tuple(dots), predicted=True)
