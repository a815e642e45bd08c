"""The benchmarks of how costs grow and of how well profiles predict: what they make of measurements."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize
from synthetic import benchmark_module

from autometa.tuning.point import Point
from autometa.tuning.profiles import KINDS, Profile, Speeds

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000)


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_scaling_fit")


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_an_exponent_is_found_whatever_small_sizes_cost(fit: Any, exponent: float) -> None:
    costs = {size: [99.0, 1e-8 * size**exponent] for size in SIZES[3:]} | {size: [5.0] for size in SIZES[:3]}
    slope, width = fit.fit_exponent(costs, 0.0)
    assert slope == pytest.approx(exponent) and width < 1e-6


def test_noise_widens_the_interval_and_costs_that_are_noise_are_left_out(fit: Any) -> None:
    costs = {
        size: [1e-5 * size * factor] for size, factor in zip(SIZES, (1, 1, 1, 1.2, 0.8, 1.1), strict=True)
    }
    slope, width = fit.fit_exponent(costs, 0.0)
    assert abs(slope - 1) < width and width > 0.1
    assert fit.fit_exponent(costs, 0.1) is None
    assert fit.fit_exponent({10: [1.0], 20: [2.0]}, 0.0) is None


def test_an_axis_is_the_sum_of_its_parts(fit: Any) -> None:
    costs = fit.Costs()
    for size in SIZES:
        costs.add("linear", size, 1e-5 * size)
        costs.add("square", size, 1e-5 * size**2)
        costs.add("square", size, 1.0 + 1e-5 * size**2)
    rows = {row["name"]: row["value"] for row in fit.rows_of("axis", costs, "made up")}
    assert rows["scaling/axis/linear"] == pytest.approx(1.0)
    assert rows["scaling/axis/square"] == pytest.approx(2.0)
    assert rows["scaling/axis"] == pytest.approx(2.0, abs=0.01)


@pytest.mark.medium
def test_every_part_of_the_data_is_measured(fit: Any) -> None:
    pools = importlib.import_module("_scaling_pools")
    costs = fit.Costs()
    pools.measure_pool(costs, 1, 1_000, 20, 2, 8)
    pools.measure_files(costs, (100,))
    known = {
        "split",
        "draws",
        "pool",
        "share",
        "hashes",
        "episodes",
        "statistics",
        "read",
        "doubles",
        "survey",
    }
    assert known <= set(costs.seconds) and all(min(found.values()) for found in costs.seconds.values())


@pytest.mark.medium
def test_tasks_are_answered_from_random_features(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = importlib.import_module("_scaling_tasks")
    monkeypatch.setattr(tasks, "WIDTH", 8)
    monkeypatch.setattr(tasks, "KNOWN", 200)
    costs = fit.Costs()
    tasks.measure_ways(costs, (2, 3))
    assert set(costs.seconds["answer"]) == {2, 3} and len(costs.seconds["answer"][2]) == 4


def machine(**of_kind: float) -> Profile:
    speeds = Speeds(**(dict.fromkeys(KINDS, 1.0) | of_kind))
    return Profile(name="x", cores=1, memory=ByteSize(10**10), measured=speeds)


def test_a_profile_is_judged_by_points_and_by_seconds(fit: Any) -> None:
    profiles = benchmark_module("profiles")

    def point(budget_s: float, score: float, first_s: float) -> Point:
        seconds = {"decode": 4.0, "probe": 2.0, "evidence": budget_s - 6.0, "total": budget_s}
        return Point(time_budget_s=budget_s, score=score, ci95=1.0, seconds=seconds, first_learner_s=first_s)

    wide = [point(20, 60.0, 5.0), point(40, 66.0, 5.0)]
    half = machine(**dict.fromkeys(KINDS, 0.5))
    rows = {r["name"]: r for r in profiles.compare(wide, [point(80, 63.0, 11.0)], machine(), half, "made up")}
    assert rows["budget/profile_error"]["value"] == pytest.approx(3.0)
    assert rows["budget/profile_error/80s"]["reference"] == 63.0
    first = rows["budget/profile_error/first_learner_s"]
    assert (first["value"], first["reference"]) == pytest.approx((10.0, 11.0))
    before = rows["budget/profile_error/before_search_s"]
    assert (before["value"], before["reference"]) == pytest.approx((12.0, 6.0))
