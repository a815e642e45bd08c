"""Engines agree with eager float32, and the race between them, on tiny networks and a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from engine_cases import ARCHITECTURES, IMAGES, PX, tiny
from PIL import Image
from synthetic import FakeClock

from autometa.backbones import build
from autometa.backbones.engines import ENGINES, TOLERANCE, EngineSpec, Race, RaceInput, disagreement
from autometa.backbones.engines import openvino as openvino_engine
from autometa.backbones.network import PixelNetwork, Preprocessing
from autometa.core.budget import TimeBudget


def installed() -> list[str]:
    rows = [s for s in ENGINES.values() if s.installed and "cpu" in s.devices and s.precision == "float32"]
    return [s.name for s in rows if s.name not in ("eager", "compiled")]


@pytest.mark.medium
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("engine", installed())
def test_engines_agree_with_eager_for_any_number_of_images(engine: str, architecture: str) -> None:
    backbone = tiny(architecture)
    reference = backbone.embed_layers(IMAGES, PX)
    backbone.prefer(engine, PX)
    backbone.prepare(IMAGES, PX, n_images=1)
    choice = backbone.choice(PX)
    assert choice is not None
    assert choice.name == engine, choice.notes
    for n in (1, 16, 19):
        output = backbone.embed_layers(IMAGES[:n], PX)
        widths = list(backbone.widths.values())
        assert disagreement(reference[:n], output, widths) < TOLERANCE
        assert output.dtype == torch.float32


@pytest.mark.medium
def test_the_compiled_engine_agrees_with_eager() -> None:
    backbone = tiny("test_resnet")
    reference = backbone.embed_layers(IMAGES, PX)
    engine = ENGINES["compiled"].build(backbone.network, PX, "cpu")
    assert disagreement(reference, engine(IMAGES), list(backbone.widths.values())) < TOLERANCE


@pytest.mark.medium
@pytest.mark.skipif(not ENGINES["openvino"].installed, reason="openvino is not installed")
def test_openvino_does_without_the_onnx_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> bytes:
        raise TypeError("no such exporter")

    monkeypatch.setattr(openvino_engine, "to_onnx", gone)
    backbone = tiny("test_resnet")
    engine = ENGINES["openvino"].build(backbone.network, PX, "cpu")
    reference = backbone.embed_layers(IMAGES, PX)
    assert disagreement(reference, engine(IMAGES), list(backbone.widths.values())) < TOLERANCE


def test_disagreement_is_seen_in_every_layer_and_image() -> None:
    reference = torch.ones(4, 6)
    reference[:, 4:] = 0.01
    output = reference.clone()
    assert disagreement(reference, output, [4, 2]) == 0
    output[2, 5] += 0.001
    assert disagreement(reference, output, [4, 2]) == pytest.approx(0.1, rel=1e-3)
    assert disagreement(reference, output, [6]) == pytest.approx(0.001, rel=1e-3)
    output[0, 0] = float("nan")
    assert disagreement(reference, output, [4, 2]) == float("inf")
    assert disagreement(reference, output[:2], [4, 2]) == float("inf")


class Means(torch.nn.Module):
    """The quickest of networks."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))


class FakeEngine:
    """The network, plus an offset, at a pace told by the clock; with `error` it fails instead."""

    def __init__(
        self,
        network: torch.nn.Module,
        clock: FakeClock,
        image_s: float,
        offset: float = 0.0,
        error: Exception | None = None,
    ) -> None:
        self.network, self.clock, self.image_s = network, clock, image_s
        self.offset, self.error = offset, error

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        self.clock.now += self.image_s * len(images)
        with torch.inference_mode():
            output: torch.Tensor = self.network(images) + self.offset
        return output


def fake(
    name: str,
    clock: FakeClock,
    image_s: float,
    *,
    build_s: float = 1.0,
    packages: tuple[str, ...] = (),
    speedup: float = 20.0,
    **trouble: Any,
) -> EngineSpec:
    def build_engine(network: PixelNetwork, px: int, device: str) -> FakeEngine:
        clock.now += build_s
        return FakeEngine(network, clock, image_s, **trouble)

    return EngineSpec(name, build_engine, build_s, speedup, packages=packages)


@pytest.fixture
def ground() -> tuple[RaceInput, FakeClock, Callable[..., Race]]:
    """A course, its clock, and a way to start a race where eager takes 0.01 s an image."""
    clock = FakeClock()
    track = RaceInput(Means(), PX, "cpu", IMAGES, [3])  # type: ignore[arg-type]
    eager = FakeEngine(track.network, clock, 0.01)

    def race(n_images: int, left_s: float = 1000, earlier: object = None) -> Race:
        budget = TimeBudget.of(left_s, clock)
        return Race(track, eager, n_images=n_images, budget=budget, earlier=earlier)  # type: ignore[arg-type]

    return track, clock, race


def table(*specs: EngineSpec) -> dict[str, EngineSpec]:
    return {spec.name: spec for spec in specs}


def test_the_fastest_wins(ground) -> None:  # type: ignore[no-untyped-def]
    _, clock, race = ground
    specs = table(fake("quick", clock, 0.004), fake("quicker", clock, 0.001), fake("slow", clock, 0.02))
    choice = race(100_000).run(specs)
    assert choice.name == "quicker"
    assert choice.image_s == pytest.approx({"eager": 0.01, "quick": 0.004, "quicker": 0.001, "slow": 0.02})
    assert choice.build_s == pytest.approx(1, abs=0.1)
    assert "quicker 1000/s" in str(choice)


def test_wrong_and_failing_engines_are_refused_with_a_reason(ground) -> None:  # type: ignore[no-untyped-def]
    _, clock, race = ground
    specs = table(
        fake("wrong", clock, 0.0001, offset=5.0),
        fake("broken", clock, 0.0001, error=NotImplementedError("no such layer\nmore")),
        fake("absent", clock, 0.0001, packages=("no_such_package",)),
    )
    choice = race(100_000).run(specs)
    assert choice.name == "eager"
    assert "refused, differs from eager" in choice.notes["wrong"]
    assert choice.notes["broken"] == "failed (NotImplementedError: no such layer)"
    assert choice.notes["absent"] == "not installed"
    assert all(note in str(choice) for note in choice.notes.values())


def test_an_engine_is_not_tried_where_it_can_not_pay_or_does_not_fit(ground) -> None:  # type: ignore[no-untyped-def]
    _, clock, race = ground
    dear = table(fake("dear", clock, 0.001, build_s=20))
    assert "does not pay" in race(1000).run(dear).notes["dear"]
    assert race(10_000).run(dear).name == "dear"
    assert "does not fit" in race(10_000, left_s=40).run(dear).notes["dear"]


@pytest.mark.parametrize(
    ("cheap_s", "guess", "tried"), [(0.0025, 8.0, True), (0.005, 4.0, False), (0.02, 4.0, False)]
)
def test_an_engine_that_is_dear_to_build_is_not_tried_where_cheap_ones_gain_less_than_expected(  # type: ignore[no-untyped-def]
    ground, cheap_s: float, guess: float, tried: bool
) -> None:
    """As with transformers, whose time is that of matrix products."""
    _, clock, race = ground
    cheap = fake("cheap", clock, cheap_s, speedup=4.0)
    dear = fake("dear", clock, 0.0005, build_s=30, speedup=guess)
    choice = race(100_000).run(table(cheap, dear))
    assert "cheap" in choice.image_s and ("dear" in choice.image_s) == tried
    assert tried or choice.notes["dear"] == "does not pay over 100000 images"
    assert race(100_000).run(table(dear)).name == "dear"  # without others the guess counts


def test_what_lost_clearly_at_one_size_is_not_built_for_another(ground) -> None:  # type: ignore[no-untyped-def]
    _, clock, race = ground
    specs = table(fake("quick", clock, 0.001), fake("lame", clock, 0.005))
    first = race(10_000).run(specs)
    before = clock.now
    second = race(10_000, earlier=first).run(specs)
    assert second.name == "quick"
    assert second.notes == {"lame": "slow at another size"}
    assert clock.now - before < 2


def test_an_engine_that_fails_in_use_gives_way_to_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("test_resnet")
    lines: list[str] = []
    backbone.report = lines.append
    clock = FakeClock()
    backbone.prefer("fragile", PX)
    backbone.prepare(IMAGES, PX, n_images=1, engines=table(fake("fragile", clock, 0.001)))
    choice = backbone.choice(PX)
    assert choice is not None
    assert choice.name == "fragile"
    choice.engine.error = MemoryError("out of memory")
    with pytest.raises(MemoryError):
        backbone.embed(IMAGES, PX)
    choice.engine.error = ValueError("lost")
    assert torch.equal(backbone.embed(IMAGES, PX), tiny("test_resnet").embed(IMAGES, PX))
    assert "fragile" in lines[-1]
    assert "eager from here on" in lines[-1]
    after = backbone.choice(PX)
    assert after is not None
    assert after.name == "eager"


def test_an_engine_that_rests_is_built_again_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, clock = tiny("test_resnet"), FakeClock()
    engines = table(fake("quick", clock, 0.001))
    monkeypatch.setattr(build, "ENGINES", engines)
    backbone.rest()  # nothing is chosen yet
    backbone.prefer("quick", PX)
    backbone.prepare(IMAGES, PX, n_images=1, engines=engines)
    before = backbone.embed(IMAGES, PX)
    assert backbone.is_ready(PX) and not backbone.is_ready(2 * PX)
    backbone.rest()
    rested = backbone.choice(PX)
    assert (
        rested is not None and rested.engine is None and rested.name == "quick" and not backbone.is_ready(PX)
    )
    assert torch.equal(backbone.embed(IMAGES, PX), before) and backbone.is_ready(PX)
    backbone.rest()
    backbone.prepare(IMAGES, PX, n_images=1)
    assert backbone.is_ready(PX)
    backbone.rest()
    monkeypatch.setattr(build, "ENGINES", table())  # it can not be built any more
    assert torch.equal(backbone.embed(IMAGES, PX), tiny("test_resnet").embed(IMAGES, PX))
    after = backbone.choice(PX)
    assert after is not None and after.name == "eager"


def test_a_preferred_engine_that_is_not_there_gives_way_to_eager() -> None:
    backbone = tiny("test_resnet")
    lines: list[str] = []
    backbone.report = lines.append
    backbone.prefer("no such engine", PX)
    backbone.prepare(IMAGES, PX, n_images=10**9)
    assert backbone.embed(IMAGES, PX).shape == (19, backbone.features)
    assert len(lines) == 1
    assert ": eager" in lines[0]


@pytest.mark.parametrize("px", [32, 64, 100])
def test_resizing_is_that_of_pillow(px: int) -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    ours = Preprocessing.of(model).resize(IMAGES[:1], px)[0].permute(1, 2, 0).numpy()
    picture = Image.fromarray(IMAGES[0].permute(1, 2, 0).numpy())
    theirs = np.asarray(picture.resize((px, px), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
