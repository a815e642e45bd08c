"""When a training validates and ends, on a fake clock."""

from __future__ import annotations

import pytest
from synthetic import FakeClock

from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.learners.schedule import FIRST_STEPS, TrainingSchedule


def schedule_of(
    seconds: float = 100.0, max_steps: int | None = None, validate_every: int | None = None
) -> tuple[TrainingSchedule, FakeClock]:
    clock = FakeClock()
    return TrainingSchedule(TimeBudget.of(seconds, clock), max_steps, validate_every), clock


def test_the_share_done_is_that_of_the_steps_or_of_the_time_whichever_is_larger() -> None:
    schedule, clock = schedule_of(100.0, max_steps=4)
    clock.now += 10
    assert schedule.share_done == pytest.approx(0.1)
    schedule.add_step(10.0)
    assert schedule.share_done == pytest.approx(0.25)
    schedule.earlier_s = 100.0  # of a training that goes on: half of 200 s are over
    assert schedule.share_done == pytest.approx(0.55)


def test_validation_is_due_after_so_many_steps_or_a_share_of_the_time() -> None:
    every_two, _ = schedule_of(validate_every=2)
    by_time, _ = schedule_of()
    by_time.add_validation(1.5)
    due = []
    for _ in range(2):
        every_two.add_step(1.0)
        by_time.add_step(6.0)
        due.append((every_two.is_validation_due(), by_time.is_validation_due()))
    assert due == [(False, False), (True, True)]
    by_time.add_validation(1.5)
    assert not by_time.is_validation_due() and by_time.steps_since_validation == 0


def test_a_step_fits_while_it_and_its_validation_end_in_time() -> None:
    schedule, clock = schedule_of(30.0)
    schedule.add_validation(2.0)
    schedule.add_step(8.0)
    assert schedule.fits_step()
    clock.now += 16
    assert not schedule.fits_step()


def test_a_slow_step_is_remembered_for_a_while() -> None:
    schedule, _ = schedule_of()
    for seconds in (10.0, 1.0):
        schedule.add_step(seconds)
    assert schedule.step_s == pytest.approx(9.0) and schedule.last_step_s == 1.0


def test_too_few_steps_are_known_after_the_first_ones() -> None:
    schedule, _ = schedule_of(30.0)
    for _ in range(FIRST_STEPS):
        schedule.check_worth(20)
        schedule.add_step(5.0)
    with pytest.raises(BudgetExhausted, match="fewer than 20 fit"):
        schedule.check_worth(20)
    schedule.check_worth(FIRST_STEPS + 6)
