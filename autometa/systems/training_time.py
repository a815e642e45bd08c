"""How much of a run a system of trained learners may spend on training them."""

from __future__ import annotations

from autometa.core.budget import Limits
from autometa.core.speed import SLOWDOWN
from autometa.data.test_spec import TestSpec
from autometa.planning.plan import CLOSING_S, TASK_OVERHEAD_S

SAVING_S = 1.5
"""Kept for saving at the end of meta-training."""
SAVE_EVERY_S = 5.0
"""Better learners are saved no more often than this."""


def predict_meta_test_s(test: TestSpec, start_s: float, learners_s: float) -> float:
    """Predicted seconds of meta-test, from process start (`start_s` with all imports) to the last answer, in which
    learners work for `learners_s` as measured."""
    return test.start_s(start_s) + SLOWDOWN * (learners_s + test.tasks * TASK_OVERHEAD_S) + CLOSING_S


def left_for_training_s(limits: Limits, reserve_s: float) -> float:
    """Seconds until training must end, with `reserve_s` for meta-test and time for saving; negative where there are
    none."""
    return min(limits.train.left_s(), limits.run.left_s() - reserve_s) - SAVING_S
