"""Clocks that jump: a machine that was suspended, a virtual one that was moved, a wall clock that was set back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ingestion_runs import TASKS, Runner
from small_runs import POOL, SmallRuns, answers_well, choice_of
from synthetic import MakeBundle

from ingestion import Event
from ingestion.outputs import RECORD_FILE

HOUR_S = 3600.0


class Jump(list[str]):
    """Lines of a report; the clock jumps when so many are there."""

    def __init__(self, runs: SmallRuns, number: int) -> None:
        super().__init__()
        self.runs, self.number = runs, number

    def append(self, line: str) -> None:
        super().append(line)
        if len(self) == self.number:
            self.runs.clock.now += HOUR_S


@pytest.mark.medium
@pytest.mark.parametrize("number", [1, 2, 5, 7, 10, 12])
def test_an_hour_that_is_gone_in_mid_search_ends_the_run_with_the_learner_on_disk(
    tmp_path: Path, small_runs: SmallRuns, number: int
) -> None:
    lines = Jump(small_runs, number)
    run = small_runs.make(tmp_path, lines.append)
    run.bootstrap()
    learner = run.run(POOL)
    assert len(lines) >= number
    assert answers_well(tmp_path) == learner.validation["stage"]
    bought = [line for line in lines[number:] if line.startswith("bought")]
    assert len(bought) <= 1, lines  # what was under way, and nothing that is late
    assert not any("Traceback" in line for line in lines)


@pytest.mark.medium
def test_a_wall_clock_that_is_set_back_changes_nothing(
    tmp_path: Path, small_runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "back"):
        (tmp_path / name).mkdir()
    small_runs(tmp_path / "whole")
    now = time.time()
    back = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: now - HOUR_S * next(back))
    lines = small_runs(tmp_path / "back", feature_cache=tmp_path / "cache")
    assert choice_of(tmp_path / "back") == choice_of(tmp_path / "whole")
    assert not any("stopped early" in line for line in lines), lines


@pytest.mark.medium
def test_an_hour_that_is_gone_in_meta_test_ends_the_run_with_what_is_answered(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, real = [0.0], time.monotonic

    def jump(event: Event) -> None:
        runner.events.append(event)
        if event.kind == "progress" and event.total == TASKS and event.done == 2:
            gone[0] = HOUR_S

    monkeypatch.setattr(time, "monotonic", lambda: real() + gone[0])
    runner.on_event = jump
    began = real()
    result = runner(make_bundle(), time_budget_s=900)
    assert real() - began < 300
    assert set(result.failures) == {3, 4} and result.succeeded
    assert all("time budget was used up" in reason for reason in result.failures.values())
    assert runner.accuracy(1) > 0.7 and runner.accuracy(2) > 0.7
    assert (runner.output / RECORD_FILE).exists()
