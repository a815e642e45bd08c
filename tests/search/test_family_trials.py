"""Families as trials of a search: which options are kept, and what they cost then."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted, Diverged
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedCosts
from autometa.search import family_trials
from autometa.search.candidates import FamilyCandidate, Pruned
from autometa.search.family_trials import FamilyTrials

POOL = colour_pool()
SPEC = EpisodeSpec((2, 4), (1, 3), 4)


class Training:
    """Stands for training and answering: how good options are is told by the inner rate, and so is the cost."""

    def __init__(self, fails_at: float = -1.0) -> None:
        self.fails_at = fails_at

    def train(self, recipe: Recipe, *_: Any, fits: Any, **__: Any) -> float:
        rate = float(recipe.options["rate"])
        fits(TrainedCosts(rate, rate))
        if rate == self.fails_at:
            raise Diverged("no numbers any more")
        return rate

    def answer(self, learner: float, *_: Any) -> tuple[Answer, TrainedCosts]:
        return Answer((torch.full((1,), learner),), np.full(9, learner)), TrainedCosts(learner, learner)


def anil(backbone: str) -> FamilyCandidate:
    return FamilyCandidate("anil", backbone, 96, {"rate": 0.5})


def seen(answers: Any) -> None:
    """A look at the first answers that finds nothing wrong."""


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tiny_backbone: str) -> FamilyTrials:
    training = Training(fails_at=3.0)
    monkeypatch.setattr(family_trials, "train_family", training.train)
    monkeypatch.setattr(family_trials, "answer_episodes", training.answer)
    memory = MemoryBudget.of_machine()
    forecast: Any = SimpleNamespace(
        policy=POLICY,
        fits=lambda views, learners: True,
        test=SimpleNamespace(episodes=SPEC),
        limits=SimpleNamespace(train=TimeBudget.of(100), memory=memory),
        make_room=lambda: None,
    )
    forecast.shelf = BackboneShelf("cpu")
    validation_set = ValidationSet.of(
        POOL, TestSpec(1, SPEC, None, "within-domain"), 10, 200, np.random.default_rng(0)
    )
    return FamilyTrials(validation_set, POOL.dataset_of_class, forecast, lambda line: None)


def test_of_several_options_the_best_are_kept_with_their_costs(
    trials: FamilyTrials, tiny_backbone: str
) -> None:
    (family,) = trials.candidates(View(tiny_backbone, 224, variant="tuned"), ["anil"])
    assert family == FamilyCandidate("anil", tiny_backbone, 128)

    def tried(rate: float) -> FamilyCandidate:
        return replace(family, options={"rate": rate})

    for rate, kept in ((0.5, 0.5), (0.4, 0.5), (0.8, 0.8), (0.1, 0.8)):
        assert trials.measure(tried(rate), 20.0, seen).mean == rate
        assert trials.costs(tried(rate)) == TrainedCosts(kept, kept)
        assert trials.member(tried(rate), 1.0, 1.0).learner == kept
    with pytest.raises(Diverged):
        trials.measure(tried(3.0), 20.0, seen)
    assert trials.costs(family) == TrainedCosts(0.8, 0.8)
    assert float(trials.fresh_scores(tried(0.8), trials.validation_set.fresh)[0]) == pytest.approx(0.8)


def test_what_meta_test_has_no_time_for_is_not_kept(trials: FamilyTrials, tiny_backbone: str) -> None:
    candidate = anil(tiny_backbone)
    trials.forecast.fits = lambda views, learners: False  # type: ignore[method-assign, assignment]
    with pytest.raises(BudgetExhausted, match="does not fit"):
        trials.measure(candidate, 20.0, seen)
    with pytest.raises(KeyError):
        trials.member(candidate, 1.0, 1.0)


def test_what_the_first_look_refuses_is_not_kept(trials: FamilyTrials, tiny_backbone: str) -> None:
    candidate = anil(tiny_backbone)

    def hopeless(answers: Any) -> None:
        raise Pruned(answers(trials.validation_set.fresh).mean, "far behind")

    with pytest.raises(Pruned) as caught:
        trials.measure(candidate, 20.0, hopeless)
    assert caught.value.accuracy == 0.5
    with pytest.raises(KeyError):
        trials.answer_s(candidate)


def test_a_family_needs_memory_and_time_to_answer(
    trials: FamilyTrials, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = anil(tiny_backbone)
    asked: list[bool] = []

    def train(*_: Any, fits: Any, **__: Any) -> float:
        asked.extend(fits(TrainedCosts(0.1, task_s)) for task_s in (0.01, 100.0))
        return 0.5

    monkeypatch.setattr(family_trials, "train_family", train)
    trials.measure(candidate, 20.0, seen)
    assert asked == [True, False]
    assert trials.answer_s(candidate) >= 0
    assert trials.within_s(1000.0) == 250.0 and trials.within_s(10.0) == 0
    monkeypatch.setattr(MemoryBudget, "left_bytes", lambda _: 0)
    with pytest.raises(BudgetExhausted, match="too little memory is left to train anil"):
        trials.measure(candidate, 20.0, seen)
