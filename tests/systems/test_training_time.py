"""What a system of trained learners may spend on training them."""

from __future__ import annotations

import pytest
from synthetic import FakeClock

from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.speed import SLOWDOWN
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.systems.training_time import SAVING_S, left_for_training_s, predict_meta_test_s


def test_training_leaves_time_for_saving_and_meta_test() -> None:
    clock = FakeClock()
    limits = Limits(TimeBudget.of(50, clock), TimeBudget.of(60, clock), MemoryBudget(2**30))
    assert left_for_training_s(limits, 5.0) == pytest.approx(50 - SAVING_S)
    assert left_for_training_s(limits, 40.0) == pytest.approx(20 - SAVING_S)
    clock.now += 100
    assert left_for_training_s(limits, 0.0) < 0


def test_the_work_of_learners_counts_with_a_margin() -> None:
    test = TestSpec(10, EpisodeSpec((2, 4), (1, 3), 4), 100, "within-domain")
    more_s = predict_meta_test_s(test, 2.0, 20.0) - predict_meta_test_s(test, 2.0, 10.0)
    assert more_s == pytest.approx(10 * SLOWDOWN)
    assert predict_meta_test_s(test, 3.0, 0.0) > predict_meta_test_s(test, 2.0, 0.0) > 2.0
