"""Refinements: tried in turn, and followed as far as other folds confirm them."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.search.refinement import BOUNDS, LEAST_TRIALS, PATIENCE, believe, search_refinement

OTHER = Refinement(sharpness=30.0, step=0.8, zca_shrinkage=0.05, adapt_rate=0.01)


def tried(n: int = LEAST_TRIALS) -> list[Refinement]:
    return [DEFAULT_REFINEMENT, OTHER, *([Refinement(step=0.3)] * (n - 2))]


def test_a_gain_in_every_fold_goes_nearly_the_whole_way() -> None:
    accuracies = np.full((LEAST_TRIALS, 4), 0.7)
    accuracies[1] += [0.05, 0.06, 0.05, 0.06]
    found = believe(tried(), accuracies)
    assert found.gain == pytest.approx(0.055) and found.share > 0.95
    assert found.refinement.sharpness == pytest.approx(30.0, rel=0.05)
    assert "100 % of the way" in str(found) or "99 % of the way" in str(found)


def test_noise_does_not_move_it_far() -> None:
    shares = []
    for seed in range(40):
        accuracies = 0.7 + np.random.default_rng(seed).normal(0, 0.01, (12, 4))
        shares.append(believe(tried(12), accuracies).share)
    assert np.mean(shares) < 0.25 and np.median(shares) == 0.0


def test_a_loss_on_other_folds_stays_at_the_default() -> None:
    accuracies = np.full((LEAST_TRIALS, 3), 0.7)
    accuracies[1] = [0.9, 0.65, 0.65]  # the best only thanks to one fold
    accuracies[2] = [0.6, 0.75, 0.75]
    found = believe(tried(), accuracies)
    assert found.gain < 0 and found.share == 0.0
    for name in BOUNDS:
        assert getattr(found.refinement, name) == pytest.approx(getattr(DEFAULT_REFINEMENT, name))


def test_few_trials_say_nothing() -> None:
    n = LEAST_TRIALS - 1
    accuracies = np.full((n, 3), 0.7)
    accuracies[1] = 0.9
    found = believe(tried(n), accuracies)
    assert found.refinement == DEFAULT_REFINEMENT and found.trials == n and math.isinf(found.error)


def test_the_search_begins_with_the_default_and_finds_what_is_better() -> None:
    asked: list[Refinement] = []

    def measure(refinement: Refinement) -> list[float]:
        asked.append(refinement)
        distance = abs(math.log(refinement.sharpness / 30.0))
        return [0.8 - 0.1 * distance + easy for easy in (0.0, 0.05, 0.1)]

    found = search_refinement(measure, 0, lambda: True, 25)
    assert asked[0] == DEFAULT_REFINEMENT and len(asked) == found.trials == 25
    for name, (low, high) in BOUNDS.items():
        assert all(low <= getattr(one, name) <= high for one in asked)
    assert found.share > 0.9 and 22 < found.refinement.sharpness < 38


def test_the_search_ends_when_it_may_not_go_on() -> None:
    calls = iter([True, True, False])
    found = search_refinement(lambda _: [0.5, 0.5], 0, lambda: next(calls), 100)
    assert found.trials == 3 and found.refinement == DEFAULT_REFINEMENT
    once = search_refinement(lambda _: [0.5, 0.5], 0, lambda: False, 100)
    assert once.trials == 1


def test_the_search_ends_where_nothing_better_is_found_for_long() -> None:
    rising = iter([0.5, 0.6, 0.55, 0.7, *([0.65] * 100)])
    found = search_refinement(lambda _: [next(rising)] * 2, 0, lambda: True, 100)
    assert found.trials == 4 + PATIENCE


def test_without_optuna_nothing_is_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = search_refinement(lambda _: [0.5, 0.5], 0, lambda: True, 100)
    assert (found.refinement, found.trials, found.share) == (DEFAULT_REFINEMENT, 0, 0.0)
    assert "0 trials" in str(found)
