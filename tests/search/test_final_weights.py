"""The weights at the end of a run, and the accuracy that it expects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from shop_cases import TEST, make_shop

from autometa.backbones import View
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE
from autometa.heads.modes import SIX_MODES
from autometa.search.final_weights import FinalWeights, choose_weights
from autometa.search.purchases import Purchase
from autometa.search.shop import Shop
from autometa.search.workbench import TRAINING_FOLD

pytestmark = pytest.mark.usefixtures("eager_only")


@pytest.fixture
def shop(tiny_backbone: str) -> Shop:
    """With two views."""
    shop = make_shop(tiny_backbone)
    for view in (shop.first, View(tiny_backbone, 48)):
        assert not shop.buy(Purchase("view", view), 1.0, 0.0).note
    return shop


def choose(shop: Shop) -> FinalWeights:
    return choose_weights(shop.draft, shop.draft.mixture().modes, TEST, np.random.default_rng(0))


@pytest.mark.medium
def test_weights_and_an_honest_figure(shop: Shop) -> None:
    weights = choose(shop)
    assert weights.views == shop.draft.weights() and set(weights.modes) == set(SIX_MODES)
    assert sum(weights.modes.values()) == pytest.approx(1.0)
    assert weights.temperature != IDENTITY_TEMPERATURE
    assert weights.estimate is not None and weights.calibration_error is not None
    assert 0 <= weights.calibration_error < 0.5
    measured = np.mean(shop.draft.accuracies_with(shop.draft.refinement))
    assert weights.estimate.accuracy == pytest.approx(measured, abs=0.1)
    assert weights.estimate.low < weights.estimate.accuracy < weights.estimate.high
    assert "expected accuracy" in weights.describe() and "tiny@48" in weights.describe()


@pytest.mark.medium
def test_a_mode_that_is_worse_loses_its_weight_and_noise_moves_none(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modes are equally good but one."""

    def measure(answer: Any, weights: dict[str, float]) -> Any:
        alone = [mode for mode, weight in weights.items() if weight]
        return np.full(12, 0.4 if alone == ["layers"] else 0.7) + 0.05 * answer.fold

    monkeypatch.setattr(shop.draft.evidence, "measure", measure)
    weights = choose(shop)
    assert weights.modes["layers"] < 1e-4
    for mode in SIX_MODES[:-1]:
        assert weights.modes[mode] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.medium
def test_a_fold_is_answered_with_the_weights_that_the_others_give(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    weights_of = shop.draft.weights

    def listening(without: int | None = None) -> dict[View, float]:
        asked.append(without)
        return weights_of(without)

    monkeypatch.setattr(shop.draft, "weights", listening)
    used: list[tuple[Any, int]] = []
    answer = shop.draft.answer

    def answering(mixture: Any, fold: int) -> Any:
        used.append((mixture, fold))
        return answer(mixture, fold)

    monkeypatch.setattr(shop.draft, "answer", answering)
    choose(shop)
    assert [fold for fold in asked if fold is not None] == [0, 1, 2]
    for fold in range(3):
        last = [mixture for mixture, of in used if of == fold][-1]
        assert last.views == weights_of(fold)


@pytest.mark.medium
def test_the_portfolio_has_these_weights_largest_first(shop: Shop) -> None:
    first, second = shop.draft.weights()
    weights = FinalWeights(
        {first: 0.3, second: 0.7}, dict.fromkeys(SIX_MODES, 0.0) | {"root": 1.0}, shop.draft.refinement
    )
    portfolio = weights.build(shop.draft.bench, shop.prices.forecast.shelf, balanced=True)
    assert portfolio.views == (second, first) and portfolio.weights == (0.7, 0.3)
    assert tuple(mode.name for mode in portfolio.modes) == SIX_MODES
    assert all(mode.weight > 0 for mode in portfolio.modes)
    assert portfolio.validation["views"] == {str(second): 0.7, str(first): 0.3}
    pool = shop.draft.bench.pool
    rows = np.concatenate([pool.rows_of_class[c][:3] for c in range(3)])
    answer = portfolio.fit(pool.images[rows], np.arange(3).repeat(3), 3).predict(pool.images[rows])
    assert (answer.argmax(1) == np.arange(3).repeat(3)).mean() > 0.8


@pytest.mark.medium
def test_before_the_end_weights_of_modes_are_equal(shop: Shop) -> None:
    weights = FinalWeights.equal(shop.draft)
    assert set(weights.modes.values()) == {1.0} and weights.views == shop.draft.weights()
    assert weights.estimate is None and "expected" not in weights.describe()


def test_what_training_gained_on_its_fold_does_not_weigh_there(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy answers only the fold that its gain is known from, so without that it weighs as its network does."""
    draft, plain = shop.draft, shop.first
    copy = replace(plain, variant="tuned")
    found = draft.evidence.accuracies

    def answer(mixture: Any, fold: int) -> Any:
        return found(replace(mixture, views={plain: 1.0}), fold) + (0.1 if copy in mixture.views else 0.0)

    monkeypatch.setattr(draft.evidence, "accuracies", answer)
    monkeypatch.setattr(draft, "answer_all", lambda mixture: [])
    draft.ask(copy)
    draft.bench.orientations[copy] = 1
    whole, unseen = draft.weights(), draft.weights(without=TRAINING_FOLD)
    assert whole[copy] > 1.5 * whole[plain] and unseen[copy] == unseen[plain]
    assert draft.weights(without=TRAINING_FOLD + 1)[copy] > draft.weights(without=TRAINING_FOLD + 1)[plain]
