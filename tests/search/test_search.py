"""The search: in which order candidates are asked for, and that failures are outcomes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from autometa.backbones import View
from autometa.core.errors import BudgetExhausted
from autometa.evaluation.validation_episodes import Answer
from autometa.heads import HEADS, find_metric
from autometa.search.candidates import (
    Candidate,
    FamilyCandidate,
    HeadCandidate,
    Outcome,
    Pruned,
    measure_safely,
    prefer_cheaper_within_error,
)
from autometa.search.families import FAMILIES
from autometa.search.search import AT_ONCE, CARRIED_ON, PATIENCE, SAFE, Search

SMALL, LARGE = View("net", 64), View("net", 128)


def answer_of(mean: float, noise: float = 0.0) -> Answer:
    return Answer((), mean + noise * np.random.default_rng(0).normal(size=50))


def test_what_exploring_had_no_time_for_comes_before_the_sampler_on_cheap_views() -> None:
    tried: list[HeadCandidate] = []

    def attempt(candidate: HeadCandidate) -> Outcome:
        tried.append(candidate)
        return Outcome(candidate, "failed", 0.0)

    search = Search([SMALL, LARGE], attempt, seed=0)
    turns = iter(range(3))
    search.explore(lambda: next(turns) < 2)
    guesses = sum(len(spec.first_guesses(name)) for name, spec in HEADS.items())
    assert len(tried) == 3 < SAFE < guesses
    search.refine(lambda: len(tried) < guesses + 20, 500, lambda candidate: candidate.source == SMALL.source)
    assert {c.head for c in tried[:guesses]} == set(HEADS)
    assert {c.view for c in tried} == {SMALL}


def test_search_tries_every_first_guess_and_then_improves() -> None:
    tried: list[HeadCandidate] = []

    def attempt(candidate: HeadCandidate) -> Outcome:
        tried.append(candidate)
        best = candidate.view == LARGE and candidate.head == "ridge"
        return Outcome(candidate, "ok", 0.0, answer_of(0.9 if best else 0.4 if candidate.view.flip else 0.5))

    search = Search([SMALL, LARGE], attempt, seed=0)
    search.explore(lambda: True)
    search.refine(lambda: True, 300)
    guesses = sum(len(spec.first_guesses(name)) for name, spec in HEADS.items())
    on_first = [*tried[:SAFE], *tried[SAFE + AT_ONCE : guesses + AT_ONCE]]
    assert {c.head for c in on_first} == set(HEADS)
    assert {c.view for c in on_first} == {SMALL}
    at_once = tried[SAFE : SAFE + AT_ONCE]
    assert {c.view for c in at_once} == {LARGE}, "the best of the safe ones, before all others"
    assert [find_metric(c.params["transform"]).shrinkage is None for c in at_once] == [True, False]
    carried_on = tried[guesses + AT_ONCE : guesses + CARRIED_ON]
    assert {c.view for c in carried_on} == {LARGE}
    mirrored = tried[guesses + CARRIED_ON : guesses + 2 * CARRIED_ON]
    assert {c.view for c in mirrored} == {replace(SMALL, flip=True)}
    assert len(tried) > guesses + 2 * CARRIED_ON
    best = max(search.outcomes, key=lambda o: o.score)
    assert (best.candidate.view, best.candidate.head) == (LARGE, "ridge")
    assert len(search.outcomes) == len({o.candidate.identity for o in search.outcomes})


def explored(favourite: str) -> tuple[Search, list[Any]]:
    """A search that has explored the small view, where one head or family is better than all others; what it has
    tried, and goes on to try."""
    tried: list[Any] = []

    def attempt(candidate: Candidate) -> Outcome:
        tried.append(candidate)
        name = candidate.head if isinstance(candidate, HeadCandidate) else candidate.family
        return Outcome(candidate, "ok", 0.0, answer_of(0.9 if name == favourite else 0.5))

    search = Search([SMALL], attempt, seed=0)
    search.explore(lambda: True)
    return search, tried


def test_further_views_meet_the_best_heads_and_what_is_known_is_not_tried_again() -> None:
    search, tried = explored("plda")
    before = len(tried)
    tuned = View("net", 64, variant="tuned")
    search.widen([tuned], lambda: True)
    assert len(tried) == before + CARRIED_ON
    assert {c.view for c in tried[before:]} == {tuned}
    assert tried[before].head == "plda"
    search.refine(lambda: len(tried) < before + CARRIED_ON + 15, 10_000)
    assert len({c.identity for c in tried}) == len(tried)
    search.widen([], lambda: True)


def test_families_join_the_space_with_options_of_their_own() -> None:
    """First guesses in the order given; then the sampler asks for heads and for families that are affordable."""
    search, tried = explored("maml")
    before = len(tried)
    families = [(FamilyCandidate(name, "net", 64), FAMILIES[name]) for name in ("maml", "adapters", "anil")]
    search.join(families, lambda _: len(tried) < before + 2)
    maml, adapters = tried[before:]
    assert (maml.family, maml.options) == ("maml", {"rate": 1.0, "test_steps": 3})
    assert adapters == FamilyCandidate("adapters", "net", 64, {"steps": 8, "rate": 0.1})
    assert maml.origin == adapters.origin == "family"
    search.refine(lambda: len(tried) < before + 20, 10_000)
    sampled = tried[before + 2 :]
    assert {c.origin for c in sampled} == {"sampler"}
    rates = {c.options["rate"] for c in sampled if isinstance(c, FamilyCandidate) and c.family == "maml"}
    assert len(rates) > 1 and all(0.05 <= rate <= 5 for rate in rates)
    search.refine(
        lambda: len(tried) < before + 40, 10_000, lambda candidate: candidate.source == SMALL.source
    )
    later = tried[before + 20 :]
    assert all(isinstance(c, HeadCandidate) for c in later), "there is no time for families any more"
    assert later and {c.view for c in later} == {SMALL}
    tuned = View("net", 64, variant="tuned")
    search.widen([tuned], lambda: True)
    assert {c.view for c in tried[-CARRIED_ON:]} == {tuned}
    assert {c.head for c in tried[-CARRIED_ON:]} <= set(HEADS)


def test_pruned_trials_are_told_to_the_sampler() -> None:
    def measure(_: HeadCandidate) -> Answer:
        raise Pruned(0.4, "-9.0 ± 2.0 points from the best on 30 episodes")

    def attempt(candidate: HeadCandidate) -> Outcome:
        return measure_safely(measure, candidate)

    search = Search([SMALL], attempt, seed=0)
    search.explore(lambda: True)
    search.refine(lambda: True, 10)
    assert {outcome.status for outcome in search.outcomes} == {"pruned"}
    line = json.loads(json.dumps(search.outcomes[0].record()))
    assert line["status"] == "pruned" and "points" in line["note"] and "accuracy" not in line


def test_search_ends_when_told_when_idle_and_survives_failures() -> None:
    def failing(candidate: HeadCandidate) -> Outcome:
        return Outcome(candidate, "failed", 0.0, note="no luck")

    search = Search([SMALL], failing, seed=0)
    search.explore(lambda: True)
    search.refine(lambda: True, 10_000)
    guesses = sum(len(spec.first_guesses(name)) for name, spec in HEADS.items())
    assert guesses < len(search.outcomes) <= guesses + CARRIED_ON + PATIENCE
    stopped = Search([SMALL], failing, seed=0)
    stopped.explore(lambda: len(stopped.outcomes) < 2)
    stopped.refine(lambda: len(stopped.outcomes) < 2, 100)
    assert len(stopped.outcomes) == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BudgetExhausted("late"), "timeout"),
        (torch.linalg.LinAlgError("singular"), "failed"),
        (ValueError("x"), "failed"),
    ],
)
def test_failures_are_outcomes(error: Exception, status: str) -> None:
    def measure(_: HeadCandidate) -> Answer:
        raise error

    outcome = measure_safely(measure, HeadCandidate(SMALL, "ridge", {}))
    assert outcome.status == status
    assert str(error) in outcome.record()["note"]


def test_the_cheaper_view_leads_within_a_standard_error() -> None:
    cost = {SMALL: 1.0, LARGE: 4.0}
    dear = Outcome(HeadCandidate(LARGE, "ridge", {}), "ok", 0, answer_of(0.80, 0.1))
    shift = np.random.default_rng(1).normal(0, 0.1, 50)
    assert dear.answer is not None
    near = Answer((), dear.answer.accuracies - 0.005 + shift - shift.mean())
    cheap = Outcome(HeadCandidate(SMALL, "ridge", {}), "ok", 0, near)
    assert prefer_cheaper_within_error([dear, cheap], lambda v: cost[v])[0] is cheap
    far = Outcome(HeadCandidate(SMALL, "ridge", {}), "ok", 0, answer_of(0.5, 0.1))
    assert prefer_cheaper_within_error([dear, far], lambda v: cost[v])[0] is dear
