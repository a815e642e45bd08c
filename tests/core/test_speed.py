"""Speeds of recent steps and the margins that reserves get from them."""

from __future__ import annotations

import pytest

from autometa.core.speed import (
    ENOUGH_STEPS,
    RECENT,
    Speed,
    estimate_margin,
)
from autometa.core.time_policy import POLICY


def speed_of(*rates: float, items: int = 10) -> Speed:
    speed = Speed()
    for rate in rates:
        speed.add(rate * items, items)
    return speed


def test_the_mean_is_that_of_items_and_old_steps_are_forgotten() -> None:
    speed = Speed()
    assert speed.mean_s is None
    speed.add(1.0, 1)
    speed.add(1.0, 9)
    assert speed.mean_s == pytest.approx(0.2)
    for _ in range(RECENT):
        speed.add(0.5, 5)
    assert len(speed) == RECENT
    assert speed.mean_s == pytest.approx(0.1)


def test_a_percentile_weighs_steps_by_their_items() -> None:
    speed = speed_of(*[1.0] * 9, items=64)
    speed.add(30.0, 3)
    assert speed.percentile_s(95) == pytest.approx(1.0)
    speed.add(192.0, 64)
    assert speed.percentile_s(95) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="95th"):
        Speed().percentile_s(95)


def test_the_margin_is_measured_once_there_are_enough_steps_and_is_bounded() -> None:
    assert estimate_margin(None) == estimate_margin(Speed()) == POLICY.slowdown
    assert estimate_margin(speed_of(*[1.0] * (ENOUGH_STEPS - 1))) == POLICY.slowdown
    assert estimate_margin(speed_of(*[1.0] * ENOUGH_STEPS)) == POLICY.least_margin
    busy = speed_of(*[1.0] * 15, *[1.5] * 5)
    assert estimate_margin(busy) == pytest.approx(1.5 / 1.125)
    assert estimate_margin(speed_of(*[1.0] * 15, *[9.0] * 2)) == POLICY.most_margin
    assert estimate_margin(speed_of(*[0.0] * ENOUGH_STEPS)) == POLICY.slowdown
