"""The saved learner is measured in the end, and made smaller until it keeps the limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ByteSize
from shop_cases import TEST, hard_pool, make_shop

from autometa.backbones import View
from autometa.core.errors import UnmetLimit
from autometa.core.settings import Settings
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.serving_limits import ServingLimits, ServingNeeds
from autometa.search.final_weights import FinalWeights
from autometa.search.incumbent import Incumbent
from autometa.search.purchases import Purchase
from autometa.search.serving_check import (
    MEASURED,
    SavedCheck,
    draw_task,
    hold_limits,
    keeps_limits,
    learner_bytes,
    make_smaller,
)
from autometa.search.serving_gate import MODE_SETS, ServingGate
from autometa.systems.autometa import Controller

pytestmark = pytest.mark.usefixtures("eager_only")


@pytest.fixture
def portfolio(tiny_backbone: str) -> Portfolio:
    """Of two views."""
    shop = make_shop(tiny_backbone)
    for view in (shop.first, View(tiny_backbone, 48)):
        shop.buy(Purchase("view", view), 1.0, 0.01)
    made = FinalWeights.equal(shop.draft).build(shop.draft.bench, shop.prices.forecast.shelf, balanced=True)
    made.costs = shop.prices.forecast.serving_costs(made.views)
    made.validation["stage"] = "final"
    return made


@pytest.mark.medium
def test_modes_are_dropped_before_views_until_it_holds(portfolio: Portfolio) -> None:
    seen, lines = list[tuple[int, int]](), list[str]()

    def measured(one: Portfolio) -> ServingNeeds:
        seen.append((len(one.views), len(one.modes)))
        return ServingNeeds(0.01 * len(one.views) * len(one.modes))

    kept = hold_limits(portfolio, ServingLimits(infer_s=0.035), measured, lines.append)
    assert seen == [(2, 6), (2, 5), (2, 4), (2, 3), (2, 1)]
    assert (
        lines[-1] == "dropped mode adapted, plain: the saved learner was over --infer-limit (60 ms of 35ms)"
    )
    images, labels, query = draw_task(hard_pool())
    assert kept.fit(images, labels, 5).predict(query).shape == (5, 5)
    hold_limits(kept, ServingLimits(infer_s=0.005), measured, lines.append)
    assert lines[-2].startswith("dropped view tiny@") and "nothing left to drop" in lines[-1]


@pytest.mark.medium
def test_what_was_dropped_is_not_saved(portfolio: Portfolio, tmp_path: Path) -> None:
    for name in ("whole", "small"):
        (tmp_path / name).mkdir()
    portfolio.save(tmp_path / "whole")
    smaller = portfolio
    while (made := make_smaller(smaller)) is not None:
        smaller = made[0]
    smaller.save(tmp_path / "small")
    assert learner_bytes(tmp_path / "small") < learner_bytes(tmp_path / "whole")
    loaded = load_learner(tmp_path / "small")
    assert isinstance(loaded, Portfolio) and loaded.views == portfolio.views[:1]
    assert [mode.name for mode in loaded.modes] == list(MODE_SETS[-1])


@pytest.mark.medium
def test_the_learner_on_disk_is_measured_and_says_what_it_takes(
    portfolio: Portfolio, tiny_backbone: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    gate = ServingGate(ServingLimits(infer_s=60.0), make_shop(tiny_backbone).prices.forecast, 32)
    incumbent = Incumbent(tmp_path, lambda _: None)
    incumbent.offer(portfolio, None, "final")
    names = SavedCheck(gate, tmp_path, lines.append).replace(incumbent, hard_pool())
    assert set(names) == {str(view) for view in portfolio.views} | {mode.name for mode in portfolio.modes}
    loaded = load_learner(tmp_path)
    assert isinstance(loaded, Portfolio) and lines[-1].startswith("measured: ")
    told = loaded.validation[MEASURED]
    assert 0 < told["infer_s"] < 60 and told["adapt_s"] > 0 and told["model_bytes"] > 1000
    assert keeps_limits(loaded, gate.limits)
    assert not keeps_limits(loaded, ServingLimits(model_bytes=1000))
    assert keeps_limits(portfolio, ServingLimits()) and not keeps_limits(
        portfolio, ServingLimits(infer_s=9.0)
    )


@pytest.mark.medium
def test_a_learner_of_an_earlier_run_that_breaks_the_limits_is_not_resumed(
    portfolio: Portfolio, tmp_path: Path
) -> None:
    Incumbent(tmp_path, lambda _: None).offer(portfolio, None, "final")
    lines: list[str] = []
    again = Incumbent(tmp_path, lines.append)
    assert again.resume(lambda _: False) is None and "not used" in lines[-1]
    assert again.resume() is not None


@pytest.mark.parametrize(("classes", "per_class"), [(15, 8), (3, 2), (2, 1)])
def test_the_task_has_what_there_is(classes: int, per_class: int) -> None:
    images, labels, query = draw_task(hard_pool(classes, per_class))
    assert len(images) == min(classes, 5) * min(per_class, 5) == len(labels)
    assert set(labels.tolist()) == set(range(min(classes, 5))) and len(query) == 5
    assert images.dtype == np.uint8


@pytest.mark.medium
def test_a_run_that_cannot_keep_a_limit_ends_before_its_search(tiny_backbone: str, tmp_path: Path) -> None:
    forecast = make_shop(tiny_backbone).prices.forecast
    settings = Settings(backbones=(tiny_backbone,), resolutions=(32, 48), max_model_size=ByteSize(1000))
    run = Controller(settings, TEST, forecast.limits, tmp_path, lambda _: None)
    with pytest.raises(UnmetLimit, match=r"^--max-model-size 1000B: the cheapest candidate, tiny@32, takes"):
        run.bootstrap()
    assert not list(tmp_path.iterdir())  # ingestion would take a file for a learner
