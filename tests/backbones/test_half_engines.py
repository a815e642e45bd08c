"""Engines for GPUs, as far as a CPU can run them: half precision, and graphs with a stand-in for the capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from engine_cases import IMAGES, PX, tiny

from autometa.backbones.engines import ENGINES, EngineSpec, Race, RaceInput, build_checked, half
from autometa.backbones.engines.base import LEAST_COSINE, _deal_to_classes, reason_to_refuse
from autometa.backbones.engines.half import Half, HalfGraph, to_half
from autometa.backbones.network import pool_generalised
from autometa.core import machine
from autometa.core.budget import TimeBudget

MANY = IMAGES[torch.arange(64) % len(IMAGES)]


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet", "test_vit"])
def test_half_precision_gives_the_same_directions(architecture: str) -> None:
    backbone = tiny(architecture)
    widths = list(backbone.widths.values())
    reference = backbone.embed_layers(MANY, PX)
    output = Half(backbone.network, PX, "cpu", dtype=torch.float16)(MANY)
    assert output.dtype == torch.float32 and output.shape == reference.shape
    assert reason_to_refuse("half", reference, output, widths) is None
    assert backbone.model.training is False
    assert next(backbone.model.parameters()).dtype == torch.float32, "the network itself stays as it is"


@pytest.mark.medium
def test_pixels_are_normalised_in_full_precision() -> None:
    backbone = tiny("test_resnet")
    half = to_half(backbone.network, PX, "cpu", torch.bfloat16)
    normalised = half.normalise(IMAGES)
    assert normalised.dtype == torch.bfloat16
    torch.testing.assert_close(normalised, backbone.network.normalise(IMAGES).bfloat16())


def test_few_images_are_padded_to_few(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Half(tiny("test_resnet").network, PX, "cpu", dtype=torch.float32)
    sizes: list[int] = []

    def run(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return torch.zeros(len(images), 2)

    monkeypatch.setattr(half, "_run", run)
    for n in (1, 2, 4, 5, 16, 17, 64, 65, 256):
        assert half(IMAGES[torch.zeros(n, dtype=torch.long)]).shape == (n, 2)
    assert sizes == [1, 4, 4, 16, 16, 64, 64, 256, 256], "so that a batch that had no room can become smaller"


def test_numbers_too_large_for_half_precision_are_an_error() -> None:
    half = Half(tiny("test_resnet").network, PX, "cpu", dtype=torch.float16)
    larger = torch.nn.Sequential(half._network.normalise, Times(1e9))
    half._network.normalise = larger  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="too large for half precision"):
        half(IMAGES)


class Times(torch.nn.Module):
    """Makes numbers larger."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.factor


def test_generalised_means_have_room_in_half_precision() -> None:
    maps = torch.tensor([0.0, 41.0, 300.0]).half().view(1, 1, 1, 3)
    expected = pool_generalised(maps.float())
    assert pool_generalised(maps).dtype == torch.float16
    torch.testing.assert_close(pool_generalised(maps).float(), expected, rtol=1e-3, atol=0)


def fake_capture(replays: list[int]) -> Callable[..., Any]:
    """As `capture_cuda`, with work that is done again instead of a graph."""

    def capture(work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        output = work().clone()

        def replay() -> None:
            replays.append(1)
            output.copy_(work())

        return replay, output

    return capture


@pytest.mark.medium
@pytest.mark.parametrize(("n", "replays"), [(1, 0), (3, 1), (8, 1), (10, 1), (11, 2), (16, 2), (19, 3)])
def test_a_graph_serves_any_number_of_images(n: int, replays: int) -> None:
    backbone = tiny("test_resnet")
    done: list[int] = []
    graph = HalfGraph(backbone.network, PX, "cpu", dtype=torch.float32, chunk=8, capture=fake_capture(done))
    plain = Half(backbone.network, PX, "cpu", dtype=torch.float32)
    output = graph(IMAGES[:n])
    torch.testing.assert_close(output, plain(IMAGES[:n]), atol=1e-5, rtol=1e-4)
    assert len(done) == replays
    torch.testing.assert_close(graph(IMAGES[:n]), output, msg="an earlier result is not overwritten")


class FakeGraph:
    """A graph of nothing."""

    def __init__(self, events: list[Any]) -> None:
        self.replay = lambda: events.append("replay")


class FakeStream:
    """A stream of a GPU on which nothing runs."""

    def wait_stream(self, _: FakeStream) -> None:
        """There is nothing to wait for."""


def test_graphs_are_captured_on_one_stream_and_leave_no_workspaces(monkeypatch: pytest.MonkeyPatch) -> None:
    events, current = list[Any](), FakeStream()

    @contextmanager
    def graph(_: object, pool: object, stream: FakeStream) -> Iterator[None]:
        events.append(("capture", pool, stream))
        yield

    half._side_stream.cache_clear()
    fakes = {
        "Stream": FakeStream, "current_stream": lambda: current, "stream": lambda _: nullcontext(), "graph": graph,
        "set_stream": lambda stream: events.append(stream is current), "synchronize": lambda: None,
        "CUDAGraph": lambda: FakeGraph(events),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: events.append("free"), raising=False)
    reserved = iter([100, 130, 130, 170])  # when a capture begins, and when it has ended
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: next(reserved))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append("empty"))
    kept: list[int] = []
    monkeypatch.setattr(half, "set_aside", lambda _, n_bytes: kept.append(n_bytes))
    for pool in ("a", "b"):
        replay, output = half.capture_cuda(lambda: events.append("work") or 7, pool)  # type: ignore[func-returns-value]
        replay()
        assert output == 7
    half._side_stream.cache_clear()
    one, other = events[: len(events) // 2], events[len(events) // 2 :]
    assert [e if isinstance(e, str) else type(e) for e in one] == [
        *["work"] * 3, "free", "empty", tuple, "work", bool, "free", "replay"
    ]  # fmt: skip
    assert one[5][1] == "a" and other[5][1] == "b" and one[5][2] is other[5][2]
    assert one[7] is True, "back on the stream that it was on"
    assert kept == [30, 40]


def test_the_reason_says_what_failed() -> None:
    torch.manual_seed(0)
    reference = torch.randn(64, 20)
    assert reason_to_refuse("half", reference, 3 * reference, [10, 10]) is None, "lengths do not count"
    off = reference.clone()
    off[5, 10:] += 0.2 * torch.randn(10)
    assert "cosine of 0.9" in str(reason_to_refuse("half", reference, off, [10, 10]))
    assert f"at least {LEAST_COSINE['half']}" in str(reason_to_refuse("half", reference, off, [10, 10]))
    assert "no numbers" in str(reason_to_refuse("half", reference, reference / 0, [10, 10]))
    close = torch.nn.functional.normalize(torch.ones(64, 20) + 0.001 * torch.randn(64, 20), dim=1)
    moved = torch.nn.functional.normalize(torch.ones(64, 20) + 0.001 * torch.randn(64, 20), dim=1)
    assert "another nearest class centroid" in str(reason_to_refuse("half", close, moved, [20]))


def test_the_same_image_is_of_one_class_however_it_is_rounded() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 50).repeat(4, 1)
    rounded = images * (1 + 1e-6 * torch.randn_like(images))
    classes = _deal_to_classes(rounded).view(4, 32)
    assert all(torch.equal(row, classes[0]) for row in classes)
    assert torch.equal(classes[0].bincount(), torch.full((8,), 4)), "dealt evenly"


@pytest.mark.medium
def test_a_race_on_a_device_that_starts_cold_checks_on_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COLD_DEVICES", {"cpu"})
    backbone = tiny("test_resnet")
    race_input = RaceInput(backbone.network, PX, "cpu", MANY, list(backbone.widths.values()))
    assert len(race_input.to_check) == 64
    spec = EngineSpec("half", lambda *given: Half(*given, dtype=torch.bfloat16), 0.0, 100.0, precision="half")
    reference = backbone.embed_layers(race_input.to_check, PX)
    assert not isinstance(build_checked(spec, race_input, reference), str)
    race = Race(race_input, backbone._eager, n_images=10**9, budget=TimeBudget.of(1000))
    assert race.run({"half": spec}).notes == {}


def test_engines_for_gpus_are_not_tried_on_a_cpu() -> None:
    rows = [name for name, spec in ENGINES.items() if "cpu" not in spec.devices]
    assert rows == ["graph-float16", "eager-float16", "eager-bfloat16"]
    assert all(ENGINES[name].precision == "half" for name in rows)
