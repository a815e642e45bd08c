"""Made-up points of a grid, and a grid of them, for the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autometa.planning.choice_log import Choices
from autometa.tuning.budget_file import Budget
from autometa.tuning.grid import Place, list_places, make_plan
from autometa.tuning.options import TuneOptions
from autometa.tuning.point import Point, Quantiles
from autometa.tuning.store import Identity, Store
from autometa.tuning.tune import Tuning

TASKS = 40
GB = 10**9
SCORES = {30.0: 60.0, 60.0: 71.8, 240.0: 72.0}


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


class FakeRunner:
    """Answers with made-up points; `ends` at a place, as a kill does."""

    def __init__(self, ends: str = "", **values: Any) -> None:
        self.ran: list[tuple[str, bool]] = []
        self.ends, self.values, self.px = ends, values, 128

    def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
        if place.name == self.ends:
            raise KeyboardInterrupt
        self.ran.append((place.name, shares))
        if place.time_budget_s in self.values.get("misfits", ()):
            point = misfit(place.time_budget_s, "took 33.0 s, 3.0 s too long", place.memory_budget_bytes)
        else:
            own = {name: value for name, value in self.values.items() if name != "misfits"}
            score = SCORES[place.time_budget_s]
            point = make_point(
                place.time_budget_s, score, place.memory_budget_bytes, repeat=place.repeat, **own
            )
        ingestion = folder / "ingestion"
        ingestion.mkdir(parents=True, exist_ok=True)
        (ingestion / "choices.json").write_text(Choices(meta_test_bytes=GB).model_dump_json())
        (ingestion / "ingestion.json").write_text(json.dumps({"image_size": self.px}))
        return point.model_copy(update={"submission": place.submission, "threads": place.threads})


def tune(folder: Path, runner: FakeRunner, **values: Any) -> Budget:
    """A grid whose runs are made up."""
    options = TuneOptions.model_validate({"time_budget": "30s,60s,4m", "memory_budget": "4GB", **values})
    dataset = folder.parent / "photos"
    dataset.mkdir(exist_ok=True)
    store = Store(folder)
    plan = make_plan(list_places(options, 2), options.within)
    with store.claim(Identity.of(dataset, options), resume=options.resume, overwrite=options.overwrite):
        return Tuning(dataset, options, plan, runner, store, 2, lambda _: None).run()
