"""Geometry of the charts of the report: places and sizes in percent, so that they fit any width and both themes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scoring.calibration import BINS, Reliability
from scoring.run_info import RunInfo
from scoring.stage_times import META_TEST, StageTime

if TYPE_CHECKING:
    from scoring.choices_file import Served

_TRAIN = "meta_train"
_STEPS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MOST_TICKS, _MOST_PHASES = 6, 50
_LEAST_WIDTH = 0.4
_HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Span:
    """A bar of a timeline: from `left` on, `width` wide, both in percent of the whole."""

    name: str
    left: float
    width: float
    seconds: float


@dataclass(frozen=True)
class TimelineRow:
    """A stage with bars for its predicted and its actual seconds; None where one is unknown."""

    stage: StageTime
    predicted: Span | None
    actual: Span | None


@dataclass(frozen=True)
class Timeline:
    """The phases that ingestion measured, and the stages that the submission tells; `ticks`: seconds and percent.
    `budget`: where the time budget ends, in percent (None: there is none)."""

    phases: tuple[Span, ...]
    rows: tuple[TimelineRow, ...]
    ticks: tuple[tuple[float, float], ...]
    budget: float | None


@dataclass(frozen=True)
class CurvePoint:
    """A learner on disk from `x` to `x_end` on, with the accuracy that it promised at `y`, and the interval from
    `top` to `bottom`; all in percent from the upper left corner, None where no accuracy was told."""

    served: Served
    x: float
    x_end: float
    y: float | None
    top: float
    bottom: float


@dataclass(frozen=True)
class Curve:
    """Accuracy that was promised against seconds, and the score that was measured with its interval."""

    points: tuple[CurvePoint, ...]
    x_ticks: tuple[tuple[float, float], ...]
    y_ticks: tuple[tuple[float, float], ...]
    score: tuple[float, float, float]


@dataclass(frozen=True)
class ReliabilityBar:
    """A bin of confidence: heights of accuracy and of the number of queries, and where the mean confidence lies."""

    left: float
    width: float
    accuracy: float
    confidence: float
    share: float
    queries: int


def draw_timeline(run: RunInfo) -> Timeline | None:
    """The timeline of a run; None if nothing is known of its stages."""
    if not run.stages and not run.stage_times:
        return None
    begins, end_s = _begins(run)
    placed, cursor_s = [], begins.get(_TRAIN, 0.0)
    for row in run.stage_times:
        begin_s = cursor_s if row.began_s is None else begins.get(_TRAIN, 0.0) + row.began_s
        if row.stage == META_TEST:
            begin_s = begins.get(META_TEST, begin_s)
        placed.append((row, begin_s))
        cursor_s = max(cursor_s, begin_s + (row.actual_s or 0.0))
    ends = [begin_s + max(row.predicted_s or 0.0, row.actual_s or 0.0) for row, begin_s in placed]
    total_s = max([end_s, run.time_budget_s or 0.0, run.duration_s or 0.0, *ends, 1e-3])

    def span(name: str, begin_s: float, seconds: float | None) -> Span | None:
        if seconds is None:
            return None
        width = min(max(100 * seconds / total_s, _LEAST_WIDTH), 100.0)
        return Span(name, min(100 * begin_s / total_s, 100 - width), width, seconds)

    rows = sorted(placed, key=lambda pair: pair[1])
    phases = [span(name, begins[name], seconds) for name, seconds in run.stages[:_MOST_PHASES]]
    return Timeline(
        tuple(phase for phase in phases if phase),
        tuple(
            TimelineRow(
                row, span("predicted", begin_s, row.predicted_s), span("actual", begin_s, row.actual_s)
            )
            for row, begin_s in rows
        ),
        _time_ticks(0.0, total_s),
        None if not run.time_budget_s else 100 * run.time_budget_s / total_s,
    )


def draw_curve(served: Sequence[Served], run: RunInfo, mean: float, ci95: float) -> Curve | None:
    """Score against time; None where fewer than two learners, or none with an accuracy, are known."""
    told = [row for row in served if row.accuracy is not None]
    if len(served) < 2 or not told:
        return None
    begin_s = _begins(run)[0].get(_TRAIN, 0.0)
    last_s = begin_s + max(row.seconds for row in served)
    end_s = max(run.duration_s or 0.0, 1.02 * last_s, 1e-3)
    lows = [row.low if row.low is not None else row.accuracy or 0.0 for row in told]
    low = math.floor(10 * min(*lows, mean - ci95, 0.99)) / 10
    high = 1.0

    def across(seconds: float) -> float:
        return 100 * min((begin_s + seconds) / end_s, 1.0)

    def down(value: float) -> float:
        return 100 * min(max((high - value) / (high - low), 0.0), 1.0)

    rows = sorted(served, key=lambda row: row.seconds)
    ends = [across(row.seconds) for row in rows[1:]] + [100.0]
    points = []
    for row, x_end in zip(rows, ends, strict=True):
        value = row.accuracy
        top = down(row.high if row.high is not None else value or 0.0)
        bottom = down(row.low if row.low is not None else value or 0.0)
        points.append(
            CurvePoint(
                row, across(row.seconds), x_end, None if value is None else down(value), top, max(bottom, top)
            )
        )
    step = 0.1 if high - low <= 0.6 else 0.2
    values = [high - step * i for i in range(int((high - low) / step + 1e-6) + 1)]
    return Curve(
        tuple(points),
        _time_ticks(0.0, end_s),
        tuple((value, down(value)) for value in values),
        (down(mean), down(mean + ci95), down(mean - ci95)),
    )


def draw_reliability(told: Reliability) -> tuple[ReliabilityBar, ...]:
    """The bins that hold queries."""
    most = max(told.counts.max(), 1.0)
    return tuple(
        ReliabilityBar(
            left=100 * i / BINS,
            width=100 / BINS,
            accuracy=100 * told.hits[i] / count,
            confidence=100 * told.confidences[i] / count,
            share=max(100 * count / most, 1.5),
            queries=int(count),
        )
        for i, count in enumerate(told.counts)
        if count
    )


def draw_histogram(values: NDArray[np.float64]) -> tuple[tuple[float, float, int], ...]:
    """Bars of scores in 0 … 1 (those below count as 0): left edge and height in percent, and the number of tasks."""
    counts = np.histogram(np.clip(values, 0, 1), bins=_HISTOGRAM_BINS, range=(0, 1))[0]
    most = max(int(counts.max()), 1)
    return tuple(
        (100 * i / _HISTOGRAM_BINS, 100 * count / most, int(count))
        for i, count in enumerate(counts.tolist())
        if count
    )


def _begins(run: RunInfo) -> tuple[dict[str, float], float]:
    """When the stages of ingestion began, one after the other, and when the last one ended, in seconds."""
    begins: dict[str, float] = {}
    cursor_s = 0.0
    for name, seconds in run.stages:
        begins.setdefault(name, cursor_s)
        cursor_s += seconds
    return begins, cursor_s


def _time_ticks(start_s: float, end_s: float) -> tuple[tuple[float, float], ...]:
    """Round seconds and where they lie, in percent."""
    whole_s = end_s - start_s
    step_s = next((step for step in _STEPS_S if whole_s / step <= _MOST_TICKS), whole_s / _MOST_TICKS)
    return tuple((step_s * i, 100 * step_s * i / whole_s) for i in range(int(whole_s / step_s) + 1))
