"""The numbers of the contract."""

from __future__ import annotations

import pytest

from ingestion.contract import meta_test_reserve_s, seconds_told, task_limit_s, wants_standby


@pytest.mark.parametrize(
    ("maximum", "left", "tasks", "limit"),
    [
        (None, None, 9, None),
        (7, None, 9, 7),
        (None, 100, 100, 10),
        (None, 100, 1000, 5),
        (None, 100, 4, 50),
        (None, 100, 1, 1000),
        (3, 100, 4, 3),
        (None, 6, 10, 3),
    ],
)
def test_a_task_that_hangs_leaves_time_for_the_others(
    maximum: float | None, left: float | None, tasks: int, limit: float | None
) -> None:
    assert task_limit_s(maximum, left, tasks) == limit


def test_the_first_task_of_a_process_may_take_longer() -> None:
    assert task_limit_s(None, 33, 30, first=True) == 16.5
    assert task_limit_s(None, 33, 1, first=True) == 33
    assert task_limit_s(3, 33, 30, first=True) == 3


@pytest.mark.parametrize(
    ("left", "tasks", "restart", "limit"),
    [
        (2.0, 6, 0.0, 1.0),
        (2.0, 6, 3.0, 2.0),  # another process would not be ready in time
        (6.0, 6, 3.0, 6.0),
        (8.0, 6, 3.0, 4.0),
        (100.0, 100, 3.0, 10.0),
    ],
)
def test_a_task_is_not_ended_where_no_other_process_could_start(
    left: float, tasks: int, restart: float, limit: float
) -> None:
    assert task_limit_s(None, left, tasks, restart_s=restart) == limit
    assert task_limit_s(0.5, left, tasks, restart_s=restart) == 0.5


@pytest.mark.parametrize("value", [None, "3", True, -1.0, 121.0, float("nan"), float("inf"), [3]])
def test_seconds_that_a_process_makes_up_count_for_nothing(value: object) -> None:
    assert seconds_told(value, 120.0) == 0.0
    assert seconds_told(3, 120.0) == 3.0 and seconds_told(0.25, 120.0) == 0.25


def test_meta_test_has_a_floor_and_a_ceiling() -> None:
    assert meta_test_reserve_s(10, 1000) == 5
    assert meta_test_reserve_s(100, 60) == 15
    assert meta_test_reserve_s(100, 600) == 35


def test_standby_is_for_short_budgets_with_room() -> None:
    assert wants_standby(90, None)
    assert not wants_standby(None, None)
    assert not wants_standby(9000, None)
    assert not wants_standby(90, 2**30)
    assert not wants_standby(90, 500_000_000)
