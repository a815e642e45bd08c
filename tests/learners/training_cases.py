"""Small trainings for tests, also on a clock of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from learner_cases import held_out, pool_source, red_pool
from synthetic import FakeClock

from autometa.core.budget import UNLIMITED, TimeBudget
from autometa.data.episodes import EpisodeSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.training import Training
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.trial_validation import GROWTH, PROBED

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


def backwards(learner: EpisodicLearner) -> None:
    """Make a learner unlearn."""
    loss = learner.loss
    learner.loss = lambda episodes: -loss(episodes)


def rates_of(training: Training) -> list[float]:
    rates: list[float] = []
    loss = training.learner.loss

    def spied(episodes: InputEpisodes) -> torch.Tensor:
        rates.append(training._optimizer.param_groups[0]["lr"])
        return loss(episodes)

    training.learner.loss = spied
    training.run()
    return rates


def trials_of(training: Training) -> int:
    """Validations that find out how many episodes are affordable, where all are."""
    return sum(PROBED * GROWTH**i < len(training.validation.episodes.episodes) for i in range(9))
