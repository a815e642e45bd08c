"""The training loop: it learns, keeps the best state, keeps to its budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import METRIC, held_out, pool_source, red_pool
from synthetic import FakeClock

from autometa.core.budget import UNLIMITED, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.data.episodes import EpisodeSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.training import GROWTH, PERFECT, PROBED, Training
from autometa.learners.training_settings import TrainingSettings

SPEC = EpisodeSpec(ways=(5, 5), shots=(1, 3), queries_per_class=4)
SMALL = EncoderSpec(network="conv4", px=8, channels=8, pools=2)
FITTED = 10
"""Classes of `red_pool` that are trained on."""


def training_of(name: str = "prototypical", budget: TimeBudget = UNLIMITED, **settings: Any) -> Training:
    pool = red_pool()
    return Training(
        build_learner(Recipe(learner=name, encoder=SMALL)),
        pool_source(pool, SPEC, classes=FITTED),
        held_out(pool, SPEC, FITTED),
        TrainingSettings(**settings),
        budget,
    )


def state_of(learner: EpisodicLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Slow:
    """A source whose every draw takes some seconds, for the rest of a step as well."""

    def __init__(self, inner: Any, clock: FakeClock, seconds: Callable[[int], float]) -> None:
        self.inner, self.clock, self.seconds, self.draws = inner, clock, seconds, 0

    def draw(self, n: int) -> InputEpisodes:
        self.clock.now += self.seconds(self.draws)
        self.draws += 1
        return self.inner.draw(n)


def slow_training(
    budget_s: float, step_s: Callable[[int], float], validation_s: float, **settings: Any
) -> tuple[Training, FakeClock, list[float]]:
    """A training on a clock of its own; with the times at which validations ended."""
    clock = FakeClock()
    training = training_of(budget=TimeBudget.of(budget_s, clock), **settings)
    training.source = Slow(training.source, clock, step_s)
    ended: list[float] = []
    measure = training.learner.validate

    def validate(*given: Any) -> Answer:
        clock.now += validation_s
        ended.append(clock.now)
        return measure(*given)

    training.learner.validate = validate  # type: ignore[assignment]
    return training, clock, ended


@pytest.mark.medium
@pytest.mark.parametrize("name", METRIC)
def test_training_lifts_accuracy_on_classes_never_seen(name: str) -> None:
    training = training_of(name, max_steps=30, validate_every=15, learning_rate=0.01)
    record = training.run()
    assert record.steps == 30
    assert record.ended == "all steps made"
    assert record.best.mean > record.untrained.mean + 0.3
    again = training.learner.validate(training.validation.inputs, training.validation.episodes)
    assert again.mean == record.best.mean
    assert not training.learner.training


def backwards(learner: EpisodicLearner) -> None:
    """Make a learner unlearn."""
    loss = learner.loss
    learner.loss = lambda episodes: -loss(episodes)


def test_the_untrained_state_is_kept_where_training_only_harms() -> None:
    training = training_of(max_steps=40, validate_every=5, patience=3, learning_rate=0.03)
    before = state_of(training.learner)
    backwards(training.learner)
    improvements: list[Answer] = []
    training.improved = improvements.append
    record = training.run()
    assert record.ended == "no better state for long"
    assert record.steps == 15, "three validations, and more than a quarter of the steps"
    assert record.best is record.untrained
    assert improvements == []
    assert equal(state_of(training.learner), before)


@pytest.mark.medium
def test_the_learner_holds_the_best_state_when_it_is_told_of_and_at_the_end() -> None:
    training = training_of(max_steps=40, validate_every=4, learning_rate=0.01)
    improved: list[tuple[float, dict[str, torch.Tensor]]] = []
    training.improved = lambda answer: improved.append((answer.mean, state_of(training.learner)))
    record = training.run()
    means = [mean for mean, _ in improved]
    assert len(means) > 1
    assert means == sorted(means)
    assert means[-1] == record.best.mean
    assert equal(improved[-1][1], state_of(training.learner))


@pytest.mark.parametrize("name", ["siamese", "matching_fce", "prototypical"])
def test_the_same_seed_gives_the_same_parameters(name: str) -> None:
    states = []
    for noise in (1, 2):
        training = training_of(name, max_steps=6, validate_every=3)
        torch.manual_seed(noise)
        training.run()
        states.append(state_of(training.learner))
    assert equal(*states)


def rates_of(training: Training) -> list[float]:
    rates: list[float] = []
    loss = training.learner.loss

    def spied(episodes: InputEpisodes) -> torch.Tensor:
        rates.append(training._optimizer.param_groups[0]["lr"])
        return loss(episodes)

    training.learner.loss = spied
    training.run()
    return rates


def test_without_a_deadline_the_rate_falls_with_the_steps() -> None:
    rates = rates_of(training_of(max_steps=8, validate_every=8, learning_rate=0.01))
    assert rates[0] == pytest.approx(0.01)
    assert rates[4] == pytest.approx(0.005)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.001


def test_with_a_deadline_the_rate_falls_with_the_time() -> None:
    training, _, _ = slow_training(40, lambda _: 1.0, 0.5, validate_every=10, learning_rate=0.01)
    rates = rates_of(training)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.0099
    assert rates[-1] < 0.0005


@pytest.mark.parametrize("validate_every", [None, 7])
def test_training_ends_in_time(validate_every: int | None) -> None:
    training, clock, ended = slow_training(
        60, lambda i: 1.0 + 0.4 * (i % 2), 3.0, validate_every=validate_every, patience=1000
    )
    record = training.run()
    assert clock.now <= training.budget.deadline
    assert clock.now > training.budget.deadline - 10, "the time is used"
    assert record.ended == "the time is used"
    assert record.seconds == pytest.approx(clock.now - 100.0)
    assert ended[-1] == clock.now, "the last steps are measured"


def trials_of(training: Training) -> int:
    """Validations that find out how many episodes are affordable, where all are."""
    return sum(PROBED * GROWTH**i < len(training.validation.episodes.episodes) for i in range(9))


@pytest.mark.medium
def test_validation_takes_its_share_of_the_time() -> None:
    training, _, ended = slow_training(150, lambda _: 1.0, 1.5, patience=1000)
    record = training.run()
    in_the_loop = (len(ended) - 2 - trials_of(training)) * 1.5
    assert 0.12 < in_the_loop / record.steps < 0.16


def test_no_step_is_made_without_time() -> None:
    training, clock, _ = slow_training(0, lambda _: 1.0, 0.0)
    before = state_of(training.learner)
    clock.now += 5
    with pytest.raises(BudgetExhausted, match=r"training: the time budget ended 5\.0 s ago"):
        training.run()
    assert equal(state_of(training.learner), before)


def test_training_that_diverges_ends_with_its_best_state() -> None:
    training = training_of(max_steps=40, validate_every=8, learning_rate=0.01)
    improved: list[dict[str, torch.Tensor]] = []
    training.improved = lambda _: improved.append(state_of(training.learner))
    loss, made = training.learner.loss, [0]

    def diverging(episodes: InputEpisodes) -> torch.Tensor:
        made[0] += 1
        return loss(episodes) * (torch.nan if made[0] > 20 else 1.0)

    training.learner.loss = diverging
    record = training.run()
    assert "no number" in record.ended
    assert "learning rate" in record.ended
    assert record.steps == 20
    assert record.best.mean > record.untrained.mean
    assert equal(state_of(training.learner), improved[-1])


def test_training_ends_when_nothing_is_left_to_gain() -> None:
    training = training_of(max_steps=40, validate_every=2)
    answers = [*[0.5] * (1 + trials_of(training)), 0.6, *[1.0] * (1 + PERFECT)]
    training.learner.validate = lambda *_: Answer((), np.full(4, answers.pop(0)))
    record = training.run()
    assert (record.steps, record.ended) == (4 + 2 * PERFECT, "every validation episode is right")


@pytest.mark.parametrize(("patience", "steps"), [(2, 11), (9, 18)])
def test_patience_is_a_number_of_validations_and_a_share_of_the_steps(patience: int, steps: int) -> None:
    training = training_of(max_steps=40, validate_every=2, patience=patience)
    training.learner.validate = lambda *_: Answer((), np.zeros(4))
    assert training.run().steps == steps


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_without_patience_all_steps_are_made(accuracy: float) -> None:
    training = training_of(max_steps=40, validate_every=2, patience=None)
    training.learner.validate = lambda *_: Answer((), np.full(4, accuracy))
    record = training.run()
    assert (record.steps, record.ended) == (40, "all steps made")


def test_gradients_are_clipped() -> None:
    training = training_of(max_steps=1, clip=1e-3)
    loss = training.learner.loss
    training.learner.loss = lambda episodes: 1e6 * loss(episodes)
    training.run()
    squares = [p.grad.square().sum() for p in training.learner.parameters() if p.grad is not None]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-3)


def test_parameters_that_are_not_trained_stay() -> None:
    training = training_of(max_steps=3, validate_every=1, learning_rate=0.01, weight_decay=0.1)
    frozen = training.learner.encoder.network[0]
    frozen.requires_grad_(False)
    weight = frozen[0].weight.clone()
    backwards(training.learner)
    training._start()
    training._step()
    assert torch.equal(frozen[0].weight, weight)


@pytest.mark.parametrize(
    ("losses", "kept"), [([0.5, *[0.6] * PERFECT], 0), ([0.5, 0.4, 0.1, *[0.3] * PERFECT], 4)]
)
def test_of_states_that_are_equally_accurate_the_surest_is_kept(losses: list[float], kept: int) -> None:
    training = training_of(max_steps=40, validate_every=2)
    scripted = [*[9.0] * trials_of(training), *losses]
    training.learner.validate = lambda *_: Answer((), np.ones(4), scripted.pop(0))
    states = {0: state_of(training.learner)}
    step = training._step

    def recorded() -> None:
        step()
        states[training._schedule.steps] = state_of(training.learner)

    training._step = recorded
    record = training.run()
    assert record.steps == 2 * PERFECT  # what is surer is no reason to go on
    assert equal(state_of(training.learner), states[kept])
