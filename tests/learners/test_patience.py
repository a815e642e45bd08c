"""A training that finds nothing better goes back with a smaller rate, and ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_cases import backwards, equal, rates_of, state_of, training_of, trials_of

from autometa.evaluation.validation_episodes import Answer
from autometa.learners.patience import LEAST_RATE, PERFECT, REDUCED


def test_the_untrained_state_is_kept_where_training_only_harms() -> None:
    training = training_of(max_steps=100, validate_every=5, patience=3, learning_rate=0.03)
    before = state_of(training.learner)
    backwards(training.learner)
    scripted = [*[0.5] * (1 + trials_of(training)), *[0.4] * 50]
    training.learner.validate = lambda *_: Answer((), np.full(4, scripted.pop(0)))
    improvements: list[Answer] = []
    training.improved = improvements.append
    record = training.run()
    assert record.ended == "no better state for long"
    assert record.steps == 30 + 3 * 15, (
        "more than a quarter of the steps, then three validations for each rate"
    )
    assert record.best is record.untrained
    assert improvements == []
    assert equal(state_of(training.learner), before)


@pytest.mark.parametrize(("patience", "steps"), [(2, [26, 34, 42, 50]), (9, [26, 44, 62, 80])])
def test_patience_is_a_number_of_validations_and_a_share_of_the_steps(
    patience: int, steps: list[int]
) -> None:
    """A quarter of the steps, and a quarter of that for each smaller rate."""
    training = training_of(max_steps=100, validate_every=2, patience=patience, learning_rate=0.01)
    training.learner.validate = lambda *_: Answer((), np.zeros(4))
    rates = rates_of(training)
    assert training._schedule.steps == steps[-1]
    expected = [0.005 * (1 + np.cos(np.pi * step / 100)) for step in range(steps[-1])]
    scales = np.array(rates) / expected
    for phase, (start, end) in enumerate(zip([0, *steps], steps, strict=False)):
        np.testing.assert_allclose(scales[start:end], REDUCED**phase)
    assert training.progress.rate_scale == pytest.approx(REDUCED**4) and REDUCED**4 < LEAST_RATE < REDUCED**3


def test_a_training_that_finds_nothing_better_goes_back_to_the_best_state() -> None:
    training = training_of(max_steps=100, validate_every=2, patience=2, learning_rate=0.01)
    scripted = [*[0.1] * (1 + trials_of(training)), 0.2, 0.5, *[0.3] * 50]
    training.learner.validate = lambda *_: Answer((), np.full(4, scripted.pop(0)))
    states: dict[int, dict[str, torch.Tensor]] = {}
    step = training._step

    def recorded() -> None:
        states.setdefault(-training._schedule.steps, state_of(training.learner))  # before the step
        step()
        states[training._schedule.steps] = state_of(training.learner)

    training._step = recorded
    training.run()
    assert equal(states[-30], states[4]) and not equal(states[30], states[4])  # 4 + 26 steps
    assert equal(states[-28], states[28]) and equal(states[-38], states[4])
    assert equal(state_of(training.learner), states[4])


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_without_patience_all_steps_are_made(accuracy: float) -> None:
    training = training_of(max_steps=40, validate_every=2, patience=None)
    training.learner.validate = lambda *_: Answer((), np.full(4, accuracy))
    record = training.run()
    assert (record.steps, record.ended) == (40, "all steps made")


def test_training_ends_when_nothing_is_left_to_gain() -> None:
    training = training_of(max_steps=40, validate_every=2)
    answers = [*[0.5] * (1 + trials_of(training)), 0.6, *[1.0] * (1 + PERFECT)]
    training.learner.validate = lambda *_: Answer((), np.full(4, answers.pop(0)))
    record = training.run()
    assert (record.steps, record.ended) == (4 + 2 * PERFECT, "every validation episode is right")
