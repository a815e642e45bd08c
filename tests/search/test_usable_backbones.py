"""Which backbones a run uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shop_cases import make_forecast
from synthetic import FakeClock

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.core.budget import TimeBudget
from autometa.core.errors import WeightsError
from autometa.core.time_policy import POLICY
from autometa.search.usable_backbones import UsableBackbones


def usable(tiny_backbone: str, *names: str) -> tuple[UsableBackbones, list[str]]:
    lines: list[str] = []
    forecast = make_forecast(tiny_backbone)
    return UsableBackbones(names or (tiny_backbone,), forecast.shelf, lines.append), lines


def test_the_first_that_can_be_built_comes_first(tiny_backbone: str) -> None:
    backbones, lines = usable(tiny_backbone, "no_such_network", "no_such_model", tiny_backbone)
    assert backbones.first_view((32, 48, 160)) == View(tiny_backbone, 160)
    assert len(lines) == 2 and not backbones.is_usable("no_such_model")
    assert len(lines) == 2, "told once"


def test_none_at_all_is_an_error_with_the_reason(tiny_backbone: str) -> None:
    backbones, _ = usable(tiny_backbone, "no_such_model")
    with pytest.raises(WeightsError, match="timm knows no model"):
        backbones.first_view((32,))


@pytest.mark.parametrize(
    ("cost", "left_s", "fits"), [(10.0, 100.0, True), (1000.0, 100.0, False), (0.0, 0.01, True)]
)
def test_what_would_take_too_long_is_not_built(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch, cost: float, left_s: float, fits: bool
) -> None:
    """Of networks that cost 1 and `cost`, the first was measured: 0.1 ms an image. A cost of 0 is not known."""
    cheap = BackboneSpec("tiny", "test_resnet", 0.5, 64, "none", relative_cost=1.0)
    monkeypatch.setitem(CATALOGUE, "tiny", cheap)
    monkeypatch.setitem(
        CATALOGUE, "dear", BackboneSpec("dear", "test_vit", 9.0, 64, "none", relative_cost=cost)
    )
    forecast = make_forecast(tiny_backbone)
    lines: list[str] = []
    backbones = UsableBackbones(("tiny", "dear"), forecast.shelf, lines.append)
    forecast._pixel_s["tiny"] = 1e-4 / 128**2
    limits = replace(forecast.limits, run=TimeBudget.of(left_s, FakeClock()))
    assert backbones.is_affordable("dear", 1000, forecast, limits, POLICY) is fits
    assert forecast.shelf.built("dear") is None
    assert lines == ([] if fits else [f"left out: dear: would take 100 of {left_s:.0f} s left"])
    assert forecast.predict_image_s(cheap, 256) == pytest.approx(4e-4)


def test_what_takes_too_much_memory_is_not_built(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "huge", BackboneSpec("huge", "test_vit", 10_000.0, 64, "none"))
    backbones, lines = usable(tiny_backbone, "huge")
    forecast = make_forecast(tiny_backbone)
    assert not backbones.is_affordable("huge", 1, forecast, forecast.limits, POLICY)
    assert lines[0].startswith("left out: huge: would take 120.4 of ")
