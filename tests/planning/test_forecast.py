"""Forecasts of meta-test from what was measured."""

from __future__ import annotations

import pytest

from autometa.backbones import CATALOGUE, Backbone, View
from autometa.backbones.costs import predict_bytes
from autometa.backbones.engines import EngineChoice
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.speed import ENOUGH_STEPS
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.planning.forecast import ALONE, ALONE_S, PROBE_PX, RACE_S, Forecast
from autometa.planning.plan import HEADS_S

TEST = TestSpec(100, EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3), 1000, "x")


@pytest.fixture
def forecast(tiny_backbone: str) -> Forecast:
    shelf, memory, budget = BackboneShelf("cpu"), MemoryBudget(2**40), TimeBudget.of(1000)
    limits, store = Limits(budget, budget, memory), FeatureStore(shelf, memory)
    forecast = Forecast(TEST, limits, shelf, store, 1.0)
    forecast._pixel_s[tiny_backbone] = 1e-6
    return forecast


def test_images_are_reserved_at_their_95th_percentile(forecast: Forecast, tiny_backbone: str) -> None:
    view = View(tiny_backbone, 32)
    speed = forecast.store.speed(view)
    speed.add(0.64, 64)
    assert forecast.costs([view]).reserved_image_s(view) == pytest.approx(POLICY.slowdown * 0.01)
    before_s = forecast.meta_test_s([view])
    for _ in range(ENOUGH_STEPS):
        speed.add(0.64, 64)
    assert forecast.costs([view]).margins == {view: POLICY.least_margin}
    saved_s = (POLICY.slowdown - POLICY.least_margin) * 0.01 * TEST.embedded_images
    assert forecast.meta_test_s([view]) == pytest.approx(before_s - saved_s)
    for _ in range(3):
        speed.add(6.4, 64)
    assert forecast.costs([view]).margins == {view: POLICY.most_margin}


def test_heads_are_reserved_as_measured(forecast: Forecast, tiny_backbone: str) -> None:
    view, other = View(tiny_backbone, 32), View(tiny_backbone, 48)
    for each in (view, other):
        forecast.store.speed(each).add(0.64, 64)
    for each in (view, other):
        forecast.answered(each, 1e6, 120)  # has embedded the images too
    for seconds in [0.12] * (ENOUGH_STEPS - 2) + [120.0]:
        forecast.answered(view, seconds, 120)
    assert forecast.costs([view, other]).task_s == HEADS_S
    forecast.answered(other, 0.12, 120)
    assert forecast.costs([view]).task_s == pytest.approx(ALONE_S + ALONE * 0.001)
    assert forecast.costs([view, other]).task_s == pytest.approx(2 * (ALONE_S + ALONE * 0.001))


def test_on_a_gpu_its_memory_has_the_images(forecast: Forecast, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(host_bytes: float, gpu_bytes: int | None) -> str:
        monkeypatch.setattr(MemoryBudget, "left_bytes", lambda _: int(host_bytes))
        monkeypatch.setattr("autometa.planning.forecast.free_bytes", lambda _: gpu_bytes)
        monkeypatch.setattr("autometa.planning.forecast.batch_size", lambda *_: 256)
        return forecast.lack_of_memory(spec)

    spec = CATALOGUE["tf_efficientnet_lite0"]
    one, many = predict_bytes(spec, PROBE_PX, 1), predict_bytes(spec, PROBE_PX, 256)
    assert one < many / 2
    between = (one + many) / 2
    assert f"would take {many / 1e6:.0f} of {between / 1e6:.0f} MB left" in say(between, None)
    assert say(between, 2 * many) == "" and say(many, many) == ""
    assert say(between, int(between)).endswith(
        f"{many / 1e6:.0f} of {between / 1e6:.0f} MB left of GPU memory"
    )
    assert say(one / 2, 2 * many).endswith("MB left")


@pytest.mark.parametrize(("left_bytes", "rests"), [(2**40, False), (2**20, True)])
def test_engines_give_back_memory_only_where_it_is_short(
    forecast: Forecast, left_bytes: int, rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[bool] = []
    monkeypatch.setattr(BackboneShelf, "rest", lambda _: rested.append(True))
    monkeypatch.setattr(MemoryBudget, "left_bytes", lambda _: left_bytes)
    forecast.make_room()
    assert bool(rested) == rests


def test_networks_of_a_kind_need_one_race(forecast: Forecast, monkeypatch: pytest.MonkeyPatch) -> None:
    won = EngineChoice("onnxruntime", None, 0.1, {"eager": 0.01, "onnxruntime": 0.001})
    close = EngineChoice("onnxruntime", None, 0.1, {"eager": 0.01, "onnxruntime": 0.008})
    monkeypatch.setitem(CATALOGUE, "tf_efficientnet_lite9", CATALOGUE["tiny"])
    for choice, expected in ((won, "onnxruntime"), (close, None), (None, None)):
        monkeypatch.setattr(Backbone, "choice", lambda *_, choice=choice: choice)
        forecast._pixel_s = {"tf_efficientnet_lite9": 1e-6}
        assert forecast._clear_winner("inverted") == expected
        assert forecast._clear_winner("convnext") is None and forecast._clear_winner("") is None


def test_a_coarser_view_has_a_size_that_its_network_takes(
    forecast: Forecast, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of patches of 14 px, and one that takes a single size, which no coarser view makes cheaper."""
    monkeypatch.setattr(Forecast, "fits", lambda *_, **__: False)
    for step, first, expected in ((14, 126, 42), (224, 224, 224)):
        monkeypatch.setattr(Backbone, "input_px", lambda _, px, step=step: max(round(px / step), 1) * step)
        assert forecast.coarsened(View(tiny_backbone, first)) == View(tiny_backbone, expected)


def test_a_copy_that_is_still_to_be_trained_has_the_engine_of_its_network(
    forecast: Forecast, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(tiny_backbone, 32, variant="tuned")
    forecast.shelf(tiny_backbone)
    monkeypatch.setattr(Backbone, "expected", lambda *_: EngineChoice("openvino", None, 2.0, {}))
    assert forecast.costs([view]).engine_s == {view: 2.0}


def test_building_an_engine_now_leaves_less_for_meta_test(
    forecast: Forecast, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(tiny_backbone, 32)
    left_s: list[float] = []
    forecast.shelf(tiny_backbone)

    def listen(_: object, left: float, *__: object) -> bool:
        left_s.append(left)
        return True

    monkeypatch.setattr("autometa.planning.forecast.affordable", listen)
    monkeypatch.setattr(Backbone, "expected", lambda *_: EngineChoice("openvino", None, 2.0, {}))
    for ready in (True, False):
        monkeypatch.setattr(Backbone, "is_ready", lambda *_, ready=ready: ready)
        forecast.fits([view], {view: 1})
    assert left_s[0] - left_s[1] >= 2.0 + RACE_S - 1e-6  # and what passed in between
