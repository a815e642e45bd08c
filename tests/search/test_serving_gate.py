"""The gate: what keeps the limits of those who use a learner is sold, what breaks them is not, and is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from shop_cases import hard_pool, make_forecast, make_shop
from synthetic import FakeClock

from autometa.backbones import CATALOGUE, TUNED, Backbone, View
from autometa.core.errors import UnmetLimit
from autometa.core.settings import Settings
from autometa.heads.modes import UNFITTED
from autometa.planning.serving_limits import ServingLimits, ServingNeeds
from autometa.search import serving_gate
from autometa.search.probing import Prober
from autometa.search.purchases import Purchase
from autometa.search.serving_gate import BASE_S, BESIDE_BYTES, MODE_SETS, ServingGate
from autometa.search.shop import Shop
from autometa.search.usable_backbones import UsableBackbones

pytestmark = pytest.mark.usefixtures("eager_only")


@pytest.fixture(autouse=True)
def without_a_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the sums below are easy."""
    monkeypatch.setattr(serving_gate, "TAIL", 1.0)


def make_gate(backbone: str, image_s: float = 0.01, value_s: float = 0.0, **limits: Any) -> ServingGate:
    """A gate that knows what an image of 32 px takes."""
    gate = ServingGate(ServingLimits(**limits), make_forecast(backbone), 32, value_s=value_s)
    gate._single_s[View(backbone, 32)] = image_s
    return gate


def test_an_image_is_timed_with_its_network(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, clock, calls = make_gate(tiny_backbone, infer_s=1.0), FakeClock(), iter(range(100))
    gate.clock = clock
    network = gate.forecast.shelf(tiny_backbone)
    embed = network.embed_layers

    def slowly(images: Any, px: int) -> Any:
        assert len(images) == 1
        clock.now += 9.0 if next(calls) < serving_gate.WARM_UPS else 0.02
        return embed(images, px)

    monkeypatch.setattr(serving_gate, "MOST_S", 100.0)
    monkeypatch.setattr(network, "embed_layers", slowly)
    gate.measure(View(tiny_backbone, 48))
    gate.measure(View(tiny_backbone, 48))
    assert gate._single_s[View(tiny_backbone, 48)] == pytest.approx(0.02)
    assert len(list(calls)) == 100 - serving_gate.WARM_UPS - serving_gate.CALLS
    assert gate.needs([View(tiny_backbone, 96)], ()).infer_s == pytest.approx(BASE_S + 0.08)  # by the pixels


@pytest.mark.medium
def test_modes_go_before_views(tiny_backbone: str) -> None:
    views = [View(tiny_backbone, 32), View(tiny_backbone, 48)]
    sizes = [make_gate(tiny_backbone)._values(views[0], modes) for modes in MODE_SETS]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    for place, modes in enumerate(MODE_SETS):
        gate = make_gate(
            tiny_backbone, value_s=0.01 / sizes[0], infer_s=BASE_S + 0.0101 + 0.01 * sizes[place] / sizes[0]
        )
        assert gate.modes(views[:1]) == modes
        assert gate.broken_with(views[:1]) is None
        broken = gate.broken_with(views)
        assert broken is not None and str(broken).startswith("over --infer-limit (")
    assert ServingGate(ServingLimits(), gate.forecast, 32).modes(views) == MODE_SETS[0]


@pytest.mark.parametrize(
    ("limits", "option"),
    [({"adapt_s": 0.2}, "--adapt-limit"), ({"model_bytes": 10_000}, "--max-model-size")],
)
def test_each_limit_is_heeded(tiny_backbone: str, limits: dict[str, Any], option: str) -> None:
    gate = make_gate(tiny_backbone, **limits)
    broken = gate.broken_with([View(tiny_backbone, 32)])
    assert broken is not None and broken.option == option


def test_a_copy_that_is_not_trained_yet_takes_what_its_network_takes(tiny_backbone: str) -> None:
    gate, view = make_gate(tiny_backbone, infer_s=1.0), View(tiny_backbone, 32)
    copy = View(tiny_backbone, 32, variant=TUNED)
    one, both = gate.needs([view], MODE_SETS[0]), gate.needs([view, copy], MODE_SETS[0])
    assert both.infer_s - BASE_S == pytest.approx(2 * (one.infer_s - BASE_S))
    assert both.model_bytes > 1.5 * (one.model_bytes - BESIDE_BYTES)
    assert gate.broken_with([view, copy]) is None


def test_what_whole_learners_take_sets_it_right(tiny_backbone: str) -> None:
    gate, view = make_gate(tiny_backbone, infer_s=1.0), View(tiny_backbone, 32)
    before = gate.needs([view], MODE_SETS[0])
    gate.correct([view], MODE_SETS[0], ServingNeeds(2 * before.infer_s, before.adapt_s / 2))
    after = gate.needs([view], MODE_SETS[0])
    assert after.infer_s == pytest.approx(2 * before.infer_s)
    assert after.adapt_s == pytest.approx(before.adapt_s / 2)


def test_the_first_view_that_keeps_the_limits_is_taken(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [View(tiny_backbone, px) for px in (64, 48, 32)]
    monkeypatch.setattr(ServingGate, "measure", lambda *_, **__: None)
    assert make_gate(tiny_backbone, 0.01, infer_s=0.03).first_view(views) == views[1]
    with pytest.raises(UnmetLimit) as error:
        make_gate(tiny_backbone, 0.01, infer_s=0.005).first_view(views)
    text = str(error.value)
    assert text.startswith(
        f"--infer-limit 5ms: the cheapest candidate, {tiny_backbone}@32, takes 12 ms for one image"
    )
    assert "raise the limit" in text and "\n" not in text and UnmetLimit.plain


def test_a_backbone_that_is_not_built_is_left_out_by_its_cost(tiny_backbone: str) -> None:
    gate = make_gate(tiny_backbone, 0.01, infer_s=0.02, model_bytes=5 * 10**6)
    large = CATALOGUE["tf_efficientnet_lite2"]
    broken = gate.too_slow(large, 32)
    assert broken is not None and broken.option in ("--infer-limit", "--max-model-size")
    assert ServingGate(ServingLimits(), gate.forecast, 32).too_slow(large, 32) is None


@pytest.fixture
def shop(tiny_backbone: str) -> Shop:
    """With its first view bought, and a limit that has no room for a second one."""
    shop = make_shop(tiny_backbone)
    gate = ServingGate(ServingLimits(infer_s=0.02), shop.prices.forecast, 32, value_s=0.0)
    gate._single_s[shop.first] = 0.01
    shop.prices.gate = gate
    shop.buy(Purchase("view", shop.first), 1.0, 0.01)
    return shop


def test_what_would_break_a_limit_is_not_sold_and_that_is_said(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.gains, "expect", lambda *_: 0.01)
    offer = shop.choose()
    assert offer is not None and offer[0].kind == "turned"
    assert "not bought: tiny@48, over --infer-limit (34.5 ms of 20ms)" in shop.why_ended()
    assert shop.prices.gate is not None
    shop.prices.gate.limits = ServingLimits(infer_s=0.05)
    assert {purchase.kind for purchase in shop._list() if not shop.prices.breaks(purchase)} == {
        "view",
        "turned",
    }
    assert "not bought" not in shop.why_ended()


def test_time_to_measure_the_learner_is_kept(shop: Shop) -> None:
    assert shop.prices.gate is not None
    with_gate = shop.prices._end_s()
    assert shop.prices.gate.check_s([]) == 0.0 < shop.prices.gate.check_s([shop.first])
    shop.prices.gate = None
    assert with_gate >= shop.prices._end_s()


def test_what_a_number_of_a_metric_costs_is_measured() -> None:
    assert 0 < serving_gate._measure_value_s() < 1e-5 and np.isfinite(serving_gate._measure_value_s())


def test_the_engine_that_noise_has_chosen_is_chosen_anew_on_images(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast = make_forecast(tiny_backbone)
    gate = ServingGate(ServingLimits(infer_s=9.0), forecast, 32, value_s=0.0)
    names = UsableBackbones([tiny_backbone], forecast.shelf, lambda _: None, ranked=False)
    prober = Prober(names, forecast, Settings(resolutions=(32,)), gate, lambda _: None)
    view = prober.plain_view()
    gate._single_s[view], images, again = 5.0, hard_pool().images, list[bool]()
    monkeypatch.setattr(Backbone, "reconsider", lambda *_, whatever: again.append(whatever))
    assert prober.measure(images[:8], view, len(images)) == view
    assert again == [True] and gate.sample is not None
    assert gate._single_s[view] < 5.0


def test_the_view_that_keeps_the_limits_is_measured_first(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a backbone that breaks them alone comes before it, and only its measurement shows that it does."""
    monkeypatch.setitem(CATALOGUE, "better", CATALOGUE[tiny_backbone])
    monkeypatch.setattr(Backbone, "prepare", lambda *_, **__: None)
    gate = make_gate(tiny_backbone, image_s=0.05, infer_s=0.03)
    gate.forecast._pixel_s.clear()
    gate._single_s[View("better", 32)] = 0.001
    lines: list[str] = []
    backbones = UsableBackbones((tiny_backbone, "better"), gate.forecast.shelf, lines.append)
    prober = Prober(backbones, gate.forecast, Settings(resolutions=(32,)), gate, lines.append)
    view = prober.plain_view()
    assert view == View("better", 32)
    assert prober.measure(hard_pool().images[:8], view, 100) == view
    assert gate.forecast.probed[0] == "better", lines


def test_where_metrics_are_too_large_there_are_none(tiny_backbone: str) -> None:
    view = View(tiny_backbone, 32)
    least, fewest = (
        make_gate(tiny_backbone).needs([view], modes).model_bytes for modes in ((), MODE_SETS[-1])
    )
    assert least < fewest
    gate = make_gate(tiny_backbone, model_bytes=fewest)
    assert gate.leave_metrics_out(view) is None and gate.has_metrics
    gate = make_gate(tiny_backbone, model_bytes=fewest - 1)
    said = gate.leave_metrics_out(view)
    assert said is not None and f"with them, {view} alone would be over --max-model-size (" in said
    assert not gate.has_metrics and gate.modes([view]) == UNFITTED and gate.broken_with([view]) is None
