"""The choice of PMF's rate keeps to the time that is left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from learner_cases import held_out, pool_source, red_pool
from synthetic import FakeClock

from autometa.core.budget import TimeBudget
from autometa.data.episodes import EpisodeSpec
from autometa.learners.encoder import EncoderSpec
from autometa.learners.gradient.tasks import Task
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Validation
from autometa.learners.training_run import TrainingData, TrainingListener, measure_costs, train_learner
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.transfer.pmf import PMF, PROBED

TEST = EpisodeSpec(ways=(5, 5), shots=(1, 3), queries_per_class=4)
RECIPE = Recipe(
    learner="pmf",
    encoder=EncoderSpec(network="conv4", px=8, channels=8, pools=2),
    options={"steps": 3, "rates": (0.0, 1e-3, 1e-2)},
    training=TrainingSettings(max_steps=1, validate_every=1, meta_batch=1),
)
RATES, EPISODES = 2, 24


class Tasks:
    """A clock that moves by `seconds` with every task that is fine-tuned on; `made` counts these."""

    def __init__(self, seconds: float, patch: pytest.MonkeyPatch) -> None:
        self.clock, self.made = FakeClock(), 0

        def task_logits(_: Any, task: Task) -> torch.Tensor:
            self.clock.now += seconds
            self.made += 1
            return torch.zeros(len(task.query), task.ways)

        patch.setattr(PMF, "task_logits", task_logits)


def held_out_episodes() -> Validation:
    return held_out(red_pool(), TEST, 10, episodes=EPISODES)


def choose(tasks: Tasks, budget_s: float, task_s: float = 0.0) -> str:
    learner = TrainedLearner.untrained(RECIPE).learner
    assert isinstance(learner, PMF)
    given = held_out_episodes()
    return learner.choose_options(given.inputs, given.episodes, TimeBudget.of(budget_s, tasks.clock), task_s)


def test_a_task_that_takes_too_long_is_fine_tuned_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(27.0, monkeypatch)
    assert "rate 0: time for 0 validation episodes, 8 are needed" in choose(tasks, 6.0)
    assert tasks.made == 1


@pytest.mark.parametrize(("budget_s", "task_s"), [(6.0, 27.0), (0.0, 0.0), (-3.0, 0.0)])
def test_nothing_is_fine_tuned_on_where_time_is_known_to_be_too_short(
    budget_s: float, task_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks(27.0, monkeypatch)
    assert "rate 0: time for 0 validation episodes, 8 are needed" in choose(tasks, budget_s, task_s)
    assert tasks.made == 0


def test_what_embedding_takes_tells_that_fine_tuning_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(27.0, monkeypatch)
    embed = PMF.embed

    def slow(self: PMF, *given: Any) -> Any:
        tasks.clock.now += 1.0
        return embed(self, *given)

    monkeypatch.setattr(PMF, "embed", slow)
    assert "rate 0: time for" in choose(tasks, 6.0)
    assert tasks.made == 0


@pytest.mark.parametrize(
    ("budget_s", "probed", "episodes"),
    [(25.0, 1, 9), (40.0, 1 + PROBED, 13), (60.0, 1 + PROBED, 21), (1000.0, 1 + PROBED, EPISODES)],
)
@pytest.mark.parametrize("task_s", [0.0, 1.0])
def test_the_choice_ends_in_time(
    budget_s: float, probed: int, episodes: int, task_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tasks are probed only where that leaves time for `FEWEST` episodes."""
    tasks = Tasks(1.0, monkeypatch)
    assert f"({episodes} validation episodes)" in choose(tasks, budget_s, task_s)
    assert tasks.made == probed + RATES * episodes <= budget_s


def test_what_a_task_was_measured_to_take_is_known_to_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, lines, fitted = red_pool(), list[str](), TrainedLearner.untrained(RECIPE)
    costs = measure_costs(fitted, PreparedImages(pool.images[:64]), TEST)
    assert fitted.task_s == costs.task_s > 0
    fitted.task_s = 1000.0
    tasks, given = Tasks(1000.0, monkeypatch), held_out_episodes()
    data = TrainingData(given.inputs, pool_source(pool, TEST, classes=10), given.episodes)
    budget = TimeBudget.of(6.0, tasks.clock)
    train_learner(fitted, data, budget, listener=TrainingListener(lines.append))
    assert tasks.made == 0 and "rate 0: time for 0 validation episodes" in lines[-1]
