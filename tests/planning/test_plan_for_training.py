"""What a system of trained learners may spend on training them."""

from __future__ import annotations

import pytest
from synthetic import FakeClock

from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.learners.trained import TrainedCosts
from autometa.planning.plan import Costs, left_for_training_s, meta_test_s


def test_training_leaves_time_for_saving_and_meta_test() -> None:
    clock = FakeClock()
    limits = Limits(TimeBudget.of(50, clock), TimeBudget.of(60, clock), MemoryBudget(2**30))
    assert left_for_training_s(limits, 5.0, save_s=3.0) == pytest.approx(50 - 3.0)
    assert left_for_training_s(limits, 40.0, save_s=3.0) == pytest.approx(20 - 3.0)
    clock.now += 100
    assert left_for_training_s(limits, 0.0, save_s=0.0) < 0


def test_the_work_of_learners_counts_with_a_margin() -> None:
    test = TestSpec(10, EpisodeSpec((2, 4), (1, 3), 4), 100, "within-domain")

    def predicted_s(start_s: float, task_s: float, load_s: float = 0.0) -> float:
        learner = TrainedCosts(0.01, task_s, load_s)
        return meta_test_s([], test, Costs(start_s, {}, task_s=0.0, learners=(learner,)))

    assert predicted_s(2.0, 2.0) - predicted_s(2.0, 1.0) == pytest.approx(10 * POLICY.slowdown)
    assert predicted_s(2.0, 1.0, load_s=3.0) - predicted_s(2.0, 1.0) == pytest.approx(3 * POLICY.slowdown)
    assert predicted_s(3.0, 0.0) > predicted_s(2.0, 0.0) > 2.0
