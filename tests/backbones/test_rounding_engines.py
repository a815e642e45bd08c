"""Engines for CPUs that round more than float32 does: they must be clearly faster, and embed alike."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from engine_cases import IMAGES, PX, tiny
from synthetic import FakeClock
from test_engines import FakeEngine, Means, fake, table

from autometa.backbones.engines import ENGINES, EngineSpec, Race, RaceInput
from autometa.backbones.engines import openvino as openvino_engine
from autometa.backbones.engines.base import reason_to_refuse
from autometa.core.budget import TimeBudget

BFLOAT16 = ENGINES["openvino-bfloat16"]


def race(*specs: EngineSpec, clock: FakeClock) -> Any:
    """Against an eager engine that takes 0.01 s an image."""
    track = RaceInput(Means(), PX, "cpu", IMAGES, [3])  # type: ignore[arg-type]
    eager = FakeEngine(track.network, clock, 0.01)
    return Race(track, eager, n_images=100_000, budget=TimeBudget.of(1000, clock)).run(table(*specs))


def rounded(clock: FakeClock, image_s: float, **trouble: Any) -> EngineSpec:
    spec = fake("rounded", clock, image_s, **trouble)
    return EngineSpec(spec.name, spec.build, spec.build_s, spec.speedup, precision="bfloat16")


@pytest.mark.parametrize(("image_s", "winner"), [(0.0009, "quick"), (0.0007, "rounded")])
def test_less_precision_must_be_clearly_faster(image_s: float, winner: str) -> None:
    clock = FakeClock()
    choice = race(fake("quick", clock, 0.001), rounded(clock, image_s), clock=clock)
    assert choice.name == winner
    assert choice.image_s["rounded"] == pytest.approx(image_s)


def test_a_rounding_engine_is_checked_on_all_images() -> None:
    clock, seen = FakeClock(), []

    class Watching(FakeEngine):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return super().__call__(images)

    spec = EngineSpec("rounded", lambda n, *_: Watching(n, clock, 1e-4), 1.0, 20.0, precision="bfloat16")
    assert race(spec, clock=clock).name == "rounded"
    assert seen[0] == len(IMAGES)


def test_directions_count_and_lengths_do_not() -> None:
    torch.manual_seed(0)
    reference = torch.randn(32, 40)
    assert reason_to_refuse("bfloat16", reference, 2 * reference, [20, 20]) is None
    turned = reference + 0.5 * torch.randn(32, 40)
    assert "cosine" in str(reason_to_refuse("bfloat16", reference, turned, [20, 20]))
    slightly = reference + 0.05 * torch.randn(32, 40)
    assert reason_to_refuse("bfloat16", reference, slightly, [20, 20]) is None
    assert reason_to_refuse("half", reference, slightly, [20, 20]) is not None


def test_the_learner_of_another_machine_falls_back_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, clock = tiny("test_resnet"), FakeClock()
    broken = fake("broken", clock, 0.001, error=RuntimeError("this CPU does not compute in bfloat16"))
    specs = table(
        EngineSpec("broken", broken.build, 1.0, 20.0, precision="bfloat16", instead="quick"),
        fake("quick", clock, 0.001),
    )
    backbone.prefer("broken", PX)
    backbone.prepare(IMAGES, PX, n_images=1, engines=specs)
    choice = backbone.choice(PX)
    assert choice is not None and choice.name == "quick"
    assert "does not compute in bfloat16" in choice.notes["broken"]


def test_features_in_bfloat16_are_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, clock = tiny("test_resnet"), FakeClock()
    usual = backbone.description(PX, flip=False)
    fakes = table(EngineSpec(BFLOAT16.name, fake("any", clock, 0.001).build, 1.0, 9.0, precision="bfloat16"))
    backbone.prefer(BFLOAT16.name, PX)
    backbone.prepare(IMAGES, PX, n_images=1, engines=fakes)
    assert backbone.description(PX, flip=False) == usual | {"precision": "bfloat16"}


@pytest.mark.skipif(not BFLOAT16.installed, reason="openvino is not installed")
@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
def test_openvino_in_bfloat16(architecture: str) -> None:
    """Where the CPU has it; elsewhere it is refused at once, and not imitated."""
    backbone = tiny(architecture)
    openvino = importlib.import_module("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(RuntimeError, match="does not compute in bfloat16"):
            BFLOAT16.build(backbone.network, PX, "cpu")
        return
    output = BFLOAT16.build(backbone.network, PX, "cpu")(IMAGES)
    reference, widths = backbone.embed_layers(IMAGES, PX), list(backbone.widths.values())
    assert output.dtype == torch.float32 and not torch.equal(output, reference)
    assert reason_to_refuse("bfloat16", reference, output, widths) is None


@pytest.mark.skipif(not BFLOAT16.installed, reason="openvino is not installed")
def test_a_cpu_without_bfloat16_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldCpu:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(importlib.import_module("openvino"), "Core", OldCpu)
    monkeypatch.setattr(openvino_engine, "to_onnx", lambda *_: pytest.fail("nothing is exported"))
    with pytest.raises(RuntimeError, match="does not compute in bfloat16"):
        BFLOAT16.build(tiny("test_resnet").network, PX, "cpu")
