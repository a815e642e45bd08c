"""What a point is expected to take, from one that has run."""

from __future__ import annotations

from typing import Any

import pytest

from autometa.tuning.point import Limits, Point
from autometa.tuning.prediction import (
    BOOTSTRAP_BYTES,
    CLOSING_S,
    PROCESS_BYTES,
    RESERVE,
    Expected,
    distance,
    expect,
    purchases_of,
)

GB = 10**9
STAGES = {"bootstrap": 8.0, "pool": 1.0, "probe": 3.0, "lite0@128": 10.0, "lite0@224": 40.0, "evidence": 20.0}
TEST_S = 10.0
START_S = 12.0
"""Of ingestion and of the stages that every run has."""


def point(time_s: float = 180.0, memory: int = 4 * GB, **own: Any) -> Point:
    """A run of two views: its seconds are those of its stages, and of a test of ten seconds."""
    seconds = {"meta_train": sum(STAGES.values()), **STAGES, "meta_test": TEST_S}
    seconds["total"] = sum(STAGES.values()) + TEST_S
    given: dict[str, Any] = {
        "seconds": seconds,
        "peak_bytes": PROCESS_BYTES + 8 * 10**8,
        "chosen": ["lite0@128", "lite0@224"],
    }
    return Point(time_budget_s=time_s, memory_budget_bytes=memory, **given | own)


def limits(time_s: float, memory: int = 4 * GB) -> Limits:
    return Limits(time_budget_s=time_s, memory_budget_bytes=memory)


def test_with_the_same_budget_it_is_the_same_run() -> None:
    assert expect(limits(180), [point()]) == Expected(START_S + 70 + TEST_S, PROCESS_BYTES + 8 * 10**8)


def test_what_does_not_fit_is_not_bought_and_evidence_has_the_rest() -> None:
    """Of 60 s, the second view would take 40 after 32."""
    found = expect(limits(60, 2 * GB), [point(memory=2 * GB)])
    assert found.total_s == START_S + 10 + TEST_S + 20
    found = expect(limits(40, 2 * GB), [point(memory=2 * GB)])
    reserve_s = (RESERVE - 1) * TEST_S + CLOSING_S
    assert found.total_s == pytest.approx(40 - reserve_s)


def test_a_run_that_can_buy_nothing_ends_with_its_bootstrap() -> None:
    found = expect(limits(30, GB), [point(memory=GB)])
    assert found == Expected(START_S + TEST_S, PROCESS_BYTES + BOOTSTRAP_BYTES)


def test_a_second_process_that_stands_by_counts() -> None:
    """With much memory and little time the process of meta-test starts beside meta-training."""
    found = expect(limits(30), [point()])
    assert found.peak_bytes == 2 * PROCESS_BYTES + BOOTSTRAP_BYTES


def test_no_more_is_expected_than_the_budget() -> None:
    found = expect(limits(20, 6 * 10**8), [point(memory=6 * 10**8)])
    assert found.total_s == 20
    assert found.peak_bytes == pytest.approx(0.95 * 6 * 10**8)


def test_the_point_that_is_most_like_it_tells() -> None:
    other = point(600, peak_bytes=3 * GB)
    assert expect(limits(180), [other, point()]) == expect(limits(180), [point()])
    assert distance(limits(180), point()) == 0
    assert distance(limits(180, 2 * GB), point()) == 1


@pytest.mark.parametrize("done", [[], [point(status="failed")], [point(seconds={})]])
def test_nothing_is_expected_before_a_point_has_run(done: list[Point]) -> None:
    assert expect(limits(60), done) == Expected()


def test_checking_the_limits_is_no_purchase() -> None:
    seconds = point().seconds
    asked = point(seconds=seconds | {"limits": 2.0, "total": seconds["total"] + 2.0})
    assert list(purchases_of(asked)) == ["lite0@128", "lite0@224"]
    found = expect(limits(60, 2 * GB), [asked.model_copy(update={"memory_budget_bytes": 2 * GB})])
    assert found.total_s == START_S + 2 + 10 + TEST_S + 20
