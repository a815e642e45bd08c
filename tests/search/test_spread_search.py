"""A search whose images others embed: the same purchases, the same evidence, the same learner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from other_embedders import Others, spread_over
from shop_cases import hard_pool, make_bench, make_forecast, make_shop

from autometa.backbones import View
from autometa.core.budget import UNLIMITED, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.search.final_weights import FinalWeights
from autometa.search.purchases import Purchase

pytestmark = pytest.mark.usefixtures("eager_only")
POOL = hard_pool(per_class=12)


def bought(backbone: str, others: Others | None) -> tuple[list[Any], Any, np.ndarray]:
    """A fixed list of purchases: what they gained, the portfolio, and what it answers."""
    forecast = make_forecast(backbone)
    if others is not None:
        forecast.store.spread = spread_over(others)
        forecast.store.spread.hold(POOL.images)
    shop = make_shop(backbone, forecast, POOL)
    one, two = View(backbone, 32), View(backbone, 48)
    listed = [
        Purchase("view", one),
        Purchase("view", two),
        Purchase("turned", one, 2),
        Purchase("turned", one, 4),
    ]
    receipts = [shop.buy(purchase, 1.0, 0.01) for purchase in listed]
    portfolio = FinalWeights.equal(shop.draft).build(shop.draft.bench, forecast.shelf, balanced=False)
    support = np.concatenate([rows[:3] for rows in POOL.rows_of_class[:4]])
    query = np.concatenate([rows[3:6] for rows in POOL.rows_of_class[:4]])
    answer = portfolio.fit(POOL.images[support], np.arange(4).repeat(3), 4).predict(POOL.images[query])
    return [(receipt.gain, receipt.error, receipt.note) for receipt in receipts], portfolio, answer


@pytest.mark.medium
def test_a_fixed_list_of_purchases_gives_the_same_learner(tiny_backbone: str) -> None:
    others = Others()
    gains, portfolio, answer = bought(tiny_backbone, others)
    gains_here, portfolio_here, answer_here = bought(tiny_backbone, None)
    assert gains == gains_here and (answer == answer_here).all()
    assert portfolio.weights == portfolio_here.weights and portfolio.views == portfolio_here.views
    for key, metric in portfolio_here.metrics.items():
        if metric.projection is not None:
            assert torch.equal(portfolio.metrics[key].projection, metric.projection)
    assert [len(images) for images in others.held] == [len(POOL.images)]
    done = [(part.own.px, part.held) for part in others.parts]
    assert {(32, True), (48, True), (32, False)} <= set(done)  # turned images are not those that are held


@pytest.mark.medium
def test_prices_know_how_soon_others_embed(tiny_backbone: str) -> None:
    forecast, view = make_forecast(tiny_backbone), View(tiny_backbone, 32)
    image_s = forecast.image_s(view)
    assert forecast.embed_s(view, 1000) == 1000 * image_s and forecast.learned_image_s(view) == image_s
    forecast.store.spread = spread_over(Others(places=4))
    forecast.store.spread.setup_s = 2 * image_s
    assert forecast.embed_s(view, 1000) == pytest.approx(252 * image_s)
    assert forecast.learned_image_s(view) == pytest.approx(image_s / 4)
    assert forecast.image_s(view) == image_s  # meta-test is here


@pytest.mark.medium
def test_turned_images_end_with_the_time_and_leave_the_view_as_it_was(tiny_backbone: str) -> None:
    forecast, view = make_forecast(tiny_backbone), View(tiny_backbone, 32)
    others = Others()
    forecast.store.spread = spread_over(others)
    bench = make_bench(forecast, POOL)
    bench.take_in(view, 1, UNLIMITED)
    others.parts.clear()
    with pytest.raises(BudgetExhausted):
        bench.take_in(view, 2, TimeBudget.of(0.0))
    assert bench.orientations == {view: 1} and not others.parts
