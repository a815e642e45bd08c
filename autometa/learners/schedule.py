"""When a training validates and when its time is used, from what its steps and validations take."""

from __future__ import annotations

import math

from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted
from autometa.core.time_policy import POLICY
from autometa.learners.training_settings import TrainingSettings

REMEMBERED_SHARE = 0.9
"""The next step is expected to take at least this share of what a slow one before it took."""
FIRST_STEPS = 3
"""Steps from which the time for all is predicted; the very first one is slower than the others."""


def scale_rate(settings: TrainingSettings, share_done: float) -> float:
    """What the learning rate is multiplied by, in 0..1, once this share of a training is done."""
    match settings.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * share_done))
        case "linear":
            return 1 - share_done
        case "steps":
            done = sum(share_done >= drop for drop in settings.drops)
            factors = settings.drop_factors
            return math.prod(factors[:done] if len(factors) > 1 else factors * done)
        case "constant":
            return 1.0


class TrainingSchedule:
    """The time of one training, which ends with `budget` or after `max_steps`, and validates every `validate_every`
    steps (None: as often as it takes a fixed share of the time). One that is `repeatable` is done by its steps only.

    `steps` counts those made, `earlier_s` is the time that the training took before it was interrupted. `step_s`,
    `last_step_s` and `validation_s` are the seconds of a slow recent step, of the last step and of the last
    validation; `steps_since_validation` counts steps.
    """

    def __init__(
        self,
        budget: TimeBudget,
        max_steps: int | None,
        validate_every: int | None,
        *,
        repeatable: bool = False,
    ) -> None:
        self._budget, self._max_steps, self._validate_every = budget, max_steps, validate_every
        self._repeatable = repeatable
        self._elapsed, self.whole_s = stopwatch(budget.clock), budget.left_s()
        self.steps, self.earlier_s = 0, 0.0
        self.step_s = self.last_step_s = self.validation_s = 0.0
        self.steps_since_validation, self._trained_s = 0, 0.0

    @property
    def spent_s(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self.earlier_s + self._elapsed()

    @property
    def share_done(self) -> float:
        """Share of the steps or of the time that is used, whichever is larger, in 0..1."""
        by_steps = self.steps / self._max_steps if self._max_steps else 0.0
        if self._repeatable:
            return min(by_steps, 1.0)
        whole_s = self.earlier_s + self.whole_s
        return min(max(by_steps, self.spent_s / whole_s if whole_s else 1.0), 1.0)

    def add_step(self, seconds: float) -> None:
        """Record a step that took so long."""
        self.steps += 1
        self.steps_since_validation += 1
        self.step_s = max(seconds, REMEMBERED_SHARE * self.step_s)  # steps differ by their ways and shots
        self.last_step_s = seconds
        self._trained_s += seconds

    def add_validation(self, seconds: float) -> None:
        """Record a validation that took so long."""
        self.validation_s = seconds
        self.steps_since_validation, self._trained_s = 0, 0.0
        if not self.steps and not self.step_s:
            self.step_s = seconds  # a guess, until there was a step

    def is_validation_due(self) -> bool:
        """Whether to validate after this step."""
        if self._validate_every is not None:
            return self.steps_since_validation >= self._validate_every
        return self._trained_s >= self.validation_s / POLICY.validating_share

    def fits_step(self) -> bool:
        """Whether a further step and its validation end in time. Nothing is known of the first step: it is expected
        to take as long as a validation."""
        margin = POLICY.step_margin if self.steps else 1.0
        return self._budget.fits(margin * self.step_s + POLICY.step_margin * self.validation_s)

    def check_worth(self, least_steps: int) -> None:
        """BudgetExhausted where the first steps, made just now, show that fewer than `least_steps` will fit."""
        missing = least_steps - FIRST_STEPS
        if self.steps == FIRST_STEPS and missing > 0 and not self._budget.fits(missing * self.last_step_s):
            raise BudgetExhausted(
                f"a training step takes {self.last_step_s:.2f} s: fewer than {least_steps} fit in the "
                f"{max(self._budget.left_s(), 0):.1f} s left"
            )
