"""Made-up points of a grid, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autometa.tuning.grid import Place
from autometa.tuning.point import Point, Quantiles

TASKS = 40
GB = 10**9


def make_point(time_s: float, score: float, memory: int | None = 4 * GB, **values: Any) -> Point:
    """A point whose tasks have this mean score; the tasks of all points of a repeat differ alike."""
    repeat = values.get("repeat", 0)
    tasks = np.random.default_rng(7 + repeat).normal(0, 8, TASKS)
    noise = np.random.default_rng([int(time_s), repeat]).normal(0, 0.4, TASKS)
    scores = score + tasks - tasks.mean() + noise - noise.mean()
    defaults: dict[str, Any] = {
        "threads": 2,
        "score": score,
        "ci95": 2.5,
        "seconds": {"prepare": 2.0, "meta_train": 0.6 * time_s, "meta_test": 5.0, "total": 0.9 * time_s},
        "peak_bytes": int(1.2 * GB + 3e6 * time_s),
        "predict_ms": Quantiles(p50=20.0, p95=25.0 + time_s / 20, p99=30.0, cold=900.0),
        "adapt_ms": Quantiles(p50=60.0, p95=75.0, p99=80.0, cold=4000.0),
        "model_bytes": int(20e6 + 1e5 * time_s),
        "chosen": ["net@128"],
        "score_per_task": [float(value) for value in scores],
    }
    return Point(time_budget_s=time_s, memory_budget_bytes=memory, **{**defaults, **values})


def misfit(time_s: float, reason: str, memory: int | None = 4 * GB, **values: Any) -> Point:
    """A point that does not fit."""
    own: dict[str, Any] = {
        "score": None,
        "ci95": None,
        "score_per_task": [],
        "status": "does_not_fit",
        "reason": reason,
    }
    return make_point(time_s, 0.0, memory, **values).model_copy(update=own)


def curve(scores: dict[float, float], memory: int | None = 4 * GB, **values: Any) -> list[Point]:
    """Points by time budget, the largest first."""
    return [make_point(time_s, scores[time_s], memory, **values) for time_s in sorted(scores, reverse=True)]


def places_of(points: Sequence[Point]) -> list[Place]:
    """The places of points."""
    return [Place.of(point) for point in points]
