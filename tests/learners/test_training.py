"""The training loop: it learns, keeps the best state, keeps to its budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_cases import (
    backwards,
    equal,
    rates_of,
    slow_training,
    state_of,
    training_of,
    trials_of,
)

from autometa.core.errors import BudgetExhausted
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.base import SCALE_FACTOR
from autometa.learners.episodes import InputEpisodes
from autometa.learners.patience import PERFECT


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


def test_without_a_deadline_the_rate_falls_with_the_steps() -> None:
    rates = rates_of(training_of(max_steps=8, validate_every=8, learning_rate=0.01))
    assert rates[0] == pytest.approx(0.01)
    assert rates[4] == pytest.approx(0.005)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.001


@pytest.mark.medium
def test_with_a_deadline_the_rate_falls_with_the_time() -> None:
    training, _, _ = slow_training(40, lambda _: 1.0, 0.5, validate_every=10, learning_rate=0.01)
    rates = rates_of(training)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.0099
    assert rates[-1] < 0.0005


@pytest.mark.medium
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


@pytest.mark.parametrize("spoiled", [True, False])
def test_a_state_that_answers_what_is_no_number_is_not_kept(spoiled: bool) -> None:
    """It counts as chance, which an untrained learner may be worse than; the training ends where it is spoiled."""
    training = training_of(max_steps=3, validate_every=1, learning_rate=0.01)
    before = state_of(training.learner)
    given = [Answer((), np.full(4, -0.5), 3.0)] * (1 + trials_of(training))
    training.learner.validate = lambda *_: given.pop() if given else Answer((), np.zeros(4), np.nan)
    step = training._step

    def stepping() -> None:
        step()
        if spoiled:
            with torch.no_grad():
                next(training.learner.parameters()).fill_(torch.nan)

    training._step = stepping
    improved: list[Answer] = []
    training.improved = improved.append
    record = training.run()
    assert record.best is record.untrained and improved == []
    assert equal(state_of(training.learner), before)
    assert (record.diverged, record.steps) == ((True, 1) if spoiled else (False, 3))
    assert ("no number" in record.ended) == spoiled


def test_a_state_that_is_spoiled_at_the_last_step_is_told() -> None:
    training = training_of(max_steps=3, validate_every=2, learning_rate=0.01)
    step = training._step

    def stepping() -> None:
        step()
        if training._schedule.steps == 3:
            with torch.no_grad():
                next(training.learner.parameters()).fill_(torch.nan)

    training._step = stepping
    record = training.run()
    assert record.steps == 3 and record.diverged and "no number" in record.ended
    assert all(bool(tensor.isfinite().all()) for tensor in training.learner.state_dict().values())


@pytest.mark.parametrize("name", ["matching", "mann", "meta_sgd", "maml_plus_plus"])
def test_scales_and_inner_rates_are_trained_by_a_rate_of_their_own(name: str) -> None:
    training = training_of(name, max_steps=1, learning_rate=0.01)
    before = state_of(training.learner)
    training.run()
    factors = training.learner.rate_factors()
    assert factors and factors.keys() <= before.keys()
    rates = {id(p): group["full_rate"] for group in training._optimizer.param_groups for p in group["params"]}
    for parameter_name, parameter in training.learner.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(0.01 * factors.get(parameter_name, 1.0))
    after = training._module.state_dict()
    start = {"meta_sgd": 0.2, "maml_plus_plus": 0.2}.get(name, 1.0)  # inner rates change by shares of it
    for factor_name, factor in factors.items():
        assert factor == pytest.approx(SCALE_FACTOR * start)
        moved = (after[factor_name] - before[factor_name]).abs().max().item()
        assert moved == 0.0 or moved == pytest.approx(0.01 * factor, rel=0.05)  # a step of Adam


def test_gradients_stay_as_they_are_without_clip() -> None:
    training = training_of(max_steps=1, clip=None)
    loss = training.learner.loss
    training.learner.loss = lambda episodes: 1e6 * loss(episodes)
    training.run()
    squares = [p.grad.square().sum() for p in training.learner.parameters() if p.grad is not None]
    assert torch.stack(squares).sum().sqrt().item() > 1e3


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


@pytest.mark.medium
@pytest.mark.parametrize(("episode_s", "number"), [(0.01, 30), (0.25, 24), (1.0, 6), (3.0, 4)])
def test_so_many_episodes_validate_as_take_their_share_of_the_time(episode_s: float, number: int) -> None:
    training, clock, _ = slow_training(100, lambda _: 1.0, 0.0)
    validate = training.learner.validate

    def validate_each(inputs: torch.Tensor, episodes: ValidationEpisodes) -> Answer:
        clock.now += episode_s * len(episodes.episodes)
        return validate(inputs, episodes)

    training.learner.validate = validate_each  # type: ignore[assignment,method-assign]
    assert len(training.run().untrained.accuracies) == number
