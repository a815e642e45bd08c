"""How much of a portfolio answers where meta-test is late, on a fake clock."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic import FakeClock

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.serving import ServingCosts, ServingPlan

VIEWS, MODES, TASK_S, TASKS = 4, 6, 0.1, 120
WHOLE = VIEWS * MODES


class Answers:
    """A meta-test whose images are embedded already: a task takes what its views and modes take."""

    def __init__(self, spare: float) -> None:
        self.clock = FakeClock()
        budget = TimeBudget.of(TASKS * TASK_S * spare + 1.5, self.clock)
        schedule = MetaTestSchedule(budget, TASKS, 0, report=lambda _: None)
        views = [View(f"net{number}", 128) for number in range(VIEWS)]
        self.plan = ServingPlan(views, MODES, ServingCosts(task_s=TASK_S), schedule)
        nothing: Any = None
        self.store = FeatureStore(nothing, MemoryBudget(2**40))
        self.shares: list[int] = []

    def answer(self, tasks: int, slowness: float = 1.0) -> None:
        for _ in range(tasks):
            views, modes = self.plan.begin_task(self.store)
            self.shares.append(views * modes)
            self.clock.now += slowness * TASK_S * views * modes / WHOLE
            self.plan.end_task()


def test_in_time_all_views_and_modes_answer() -> None:
    answers = Answers(spare=1.3)
    answers.answer(TASKS)
    assert set(answers.shares) == {WHOLE}


def test_a_stall_costs_no_more_than_it_must() -> None:
    """What was measured before with more views and modes does not make those in use now look late."""
    answers = Answers(spare=1.3)
    answers.answer(TASKS // 2)
    answers.clock.now += 3.0
    answers.answer(TASKS // 2)
    after = answers.shares[TASKS // 2 :]
    assert min(after) >= WHOLE // 2 and sum(after) / len(after) > 0.7 * WHOLE


@pytest.mark.parametrize("slowness", [2.0, 3.0])
def test_a_machine_that_becomes_slower_gives_up_its_share_and_is_in_time(slowness: float) -> None:
    answers = Answers(spare=1.3)
    answers.answer(TASKS // 2)
    answers.answer(TASKS // 2, slowness)
    left_s = answers.plan._schedule.budget.left_s()
    assert left_s >= 0
    after = answers.shares[TASKS // 2 :]
    could = min(1.0, (TASKS * TASK_S * 1.3 - TASKS // 2 * TASK_S) / (TASKS // 2 * TASK_S * slowness))
    assert sum(after) / len(after) > 0.7 * could * WHOLE
