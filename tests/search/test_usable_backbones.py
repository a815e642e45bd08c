"""Which backbones a run uses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shop_cases import make_forecast
from synthetic import FakeClock

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.backbones.costs import read_costs
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


def counted(mega_macs: float, peak: float = 0.1) -> dict[str, list[float]]:
    """Figures of a network that is nothing but multiply-adds, in proportion to its pixels."""
    both = [mega_macs, 4 * mega_macs]
    return {"px": [64.0, 128.0], "dense": both, "peak": [peak, 4 * peak]} | {
        name: [0.0, 0.0] for name in ("grouped", "traffic", "ops")
    }


@pytest.mark.parametrize(
    ("cost", "left_s", "fits"), [(10.0, 100.0, True), (1000.0, 100.0, False), (None, 0.01, True)]
)
def test_what_would_take_too_long_is_not_built(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch, cost: float | None, left_s: float, fits: bool
) -> None:
    """Of networks with 1 and `cost` times as much work, the first was measured: 0.1 ms an image. None: unknown."""
    monkeypatch.setitem(CATALOGUE, "tiny", cheap := BackboneSpec("tiny", "test_resnet", 0.0, 128, "none"))
    monkeypatch.setitem(CATALOGUE, "dear", BackboneSpec("dear", "test_vit", 0.0, 128, "none"))
    monkeypatch.setitem(read_costs()["counts"], "tiny", counted(100.0))
    if cost is not None:
        monkeypatch.setitem(read_costs()["counts"], "dear", counted(100.0 * cost))
    forecast = make_forecast(tiny_backbone)
    lines: list[str] = []
    backbones = UsableBackbones(("tiny", "dear"), forecast.shelf, lines.append)
    forecast._pixel_s["tiny"] = 1e-4 / 128**2
    limits = replace(forecast.limits, run=TimeBudget.of(left_s, FakeClock()))
    assert backbones.is_affordable("dear", 1000, forecast, limits, POLICY) is fits
    assert forecast.shelf.built("dear") is None
    assert lines == ([] if fits else [f"left out: dear: would take 100 of {left_s:.0f} s left"])
    assert forecast.predict_image_s(cheap, 256) == pytest.approx(4e-4)


def test_what_was_not_measured_yet_is_ranked(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, work in {"tiny": 100.0, "slow": 9000.0, "fast": 10.0}.items():
        monkeypatch.setitem(CATALOGUE, name, BackboneSpec(name, "test_resnet", 0.5, 64, "none"))
        monkeypatch.setitem(read_costs()["counts"], name, counted(work))
    forecast = make_forecast(tiny_backbone)
    forecast._pixel_s["tiny"] = 1e-3 / 128**2
    names = ("unknown", "slow", "tiny", "fast")
    for ranked, expected in ((True, ["fast", "tiny", "slow", "unknown"]), (False, list(names))):
        backbones = UsableBackbones(names, forecast.shelf, lambda _: None, ranked=ranked)
        assert list(backbones.in_order(forecast, 1000)) == expected


@pytest.mark.medium
def test_what_takes_too_much_memory_is_not_built(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "huge", BackboneSpec("huge", "test_vit", 10_000.0, 64, "none"))
    backbones, lines = usable(tiny_backbone, "huge")
    forecast = make_forecast(tiny_backbone)
    assert not backbones.is_affordable("huge", 1, forecast, forecast.limits, POLICY)
    assert lines[0].startswith("left out: huge: would take 80")
