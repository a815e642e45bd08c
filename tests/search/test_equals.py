"""Views that change no answer are left out, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from shop_cases import TEST, make_shop

from autometa.backbones import View
from autometa.search import equals
from autometa.search.equals import leave_out_equals
from autometa.search.final_weights import choose_weights
from autometa.search.purchases import Purchase
from autometa.search.shop import Shop

pytestmark = pytest.mark.usefixtures("eager_only")


@pytest.fixture
def shop(tiny_backbone: str) -> Shop:
    """With two views that differ, of different weights."""
    shop = make_shop(tiny_backbone)
    for view in (shop.first, View(tiny_backbone, 48)):
        assert not shop.buy(Purchase("view", view), 1.0, 0.0).note
    return shop


def leave_out(shop: Shop, times: int = 100) -> list[str]:
    """What is noted, with time to ask so many times."""
    notes: list[str] = []
    left = iter([True] * times + [False] * 100)
    leave_out_equals(shop.draft, lambda: next(left), notes.append)
    return notes


def make_twins(shop: Shop) -> View:
    """Give the second view the products of the first, so that it answers the same; it is made the lighter one."""
    first, second = shop.draft.bench.orientations
    products = shop.draft.bench._products
    for fold, view, key in list(products):
        if view == first:
            products[fold, second, key] = products[fold, first, key]
    shop.draft.alone[second] = shop.draft.alone[first] - 0.001
    return second


@pytest.mark.medium
def test_a_view_that_changes_answers_stays(shop: Shop) -> None:
    before = dict(shop.draft.bench.orientations)
    assert leave_out(shop) == [] and shop.draft.bench.orientations == before


@pytest.mark.medium
def test_of_two_views_with_equal_answers_one_stays(shop: Shop) -> None:
    twin, kept = make_twins(shop), shop.first
    accuracies = [np.mean(scores) for scores in shop.draft.accuracies()]
    (note,) = leave_out(shop)
    assert str(twin) in note and str(kept) not in note.replace(str(twin), "")
    assert list(shop.draft.weights().values()) == [1.0] and shop.draft.views == [kept]
    assert len(shop.draft.answers) == len(accuracies)
    weights = choose_weights(shop.draft, shop.draft.modes, TEST, np.random.default_rng(0))
    portfolio = weights.build(shop.draft.bench, shop.prices.forecast.shelf, balanced=True)
    assert portfolio.views == (kept,) and all(view.px == kept.px for view, _ in portfolio.metrics)
    assert not shop.buy(Purchase("view", twin), 1.0, 0.0).note, "it may come back"
    assert set(shop.draft.views) == {twin, kept}


@pytest.mark.medium
def test_answers_that_agree_but_are_worse_keep_the_view(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    make_twins(shop)
    measure = shop.draft.evidence.measure
    asked: list[int] = []

    def worse(answer: Any, weights: dict[str, float]) -> Any:
        asked.append(answer.fold)
        scores, folds = measure(answer, weights), len(shop.draft.bench.folds)
        return scores - 0.05 * ((len(asked) - 1) % (2 * folds) >= folds)  # of the portfolio without a view

    monkeypatch.setattr(shop.draft.evidence, "measure", worse)
    assert leave_out(shop) == [] and len(asked) == 4 * len(shop.draft.bench.folds)


@pytest.mark.medium
def test_nothing_is_asked_where_there_is_no_time(shop: Shop) -> None:
    make_twins(shop)
    assert leave_out(shop, times=0) == [] and leave_out(shop, times=1) == []
    assert len(shop.draft.views) == 2
    assert leave_out(shop, times=2)


def test_trained_copies_do_not_remain_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folds that a copy has seen would have no answer."""
    draft = shop.draft
    copied = replace(shop.first, variant="tuned")
    draft.bench.orientations[copied] = 1
    draft.alone[copied] = draft.alone[shop.first] + 0.05
    draft.bench.leave_out(View(shop.first.backbone, 48))
    del draft.alone[View(shop.first.backbone, 48)]
    monkeypatch.setattr(draft, "answer_all", lambda _: ["answer"] * 3)
    monkeypatch.setattr(equals, "_agree", lambda *_: True)
    assert leave_out(shop) and draft.views == [shop.first], "the copy goes, although it has the larger weight"
