"""The simulation of clusters, on cases that can be counted by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def simulation() -> Any:
    """The module of the benchmark."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("_cluster_simulation")
    finally:
        sys.path.remove(folder)


def test_equal_runs_on_a_machine_each_are_done_at_once(simulation: Any) -> None:
    simulate, made = simulation.simulate, simulation.Simulated
    assert simulate([10.0] * 4, 4, 0.0) == made(10.0, 1.0, 0.0, 10.0)
    assert simulate([10.0] * 8, 4, 0.0) == made(20.0, 1.0, 0.0, 10.0)


def test_one_run_too_many_leaves_the_others_idle(simulation: Any) -> None:
    found = simulation.simulate([10.0] * 5, 4, 0.0)
    assert (found.makespan_s, found.utilisation) == (20.0, 50 / 80)


def test_a_judge_that_is_slower_than_the_machines_bounds_them(simulation: Any) -> None:
    found = simulation.simulate([1.0] * 100, 10, 0.5)
    assert found.makespan_s == pytest.approx(100 * 0.5 + 1)
    assert found.judge_load == pytest.approx(50 / 51)


def test_what_machines_do_first_counts(simulation: Any) -> None:
    assert simulation.simulate([10.0] * 2, 2, 0.0, start_s=5.0).makespan_s == 15.0
