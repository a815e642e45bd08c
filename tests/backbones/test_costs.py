"""Costs that are predicted from counts, before a network is built."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from autometa.backbones import CATALOGUE, BackboneSpec, find_spec, kind_of, predict_bytes, work_of
from autometa.backbones.costs import MIB, counts_at, read_costs, runs_on

UNKNOWN = BackboneSpec("no_such_network", "no_such_network", 10.0, 224, "none")


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_row_is_counted(name: str) -> None:
    spec = CATALOGUE[name]
    counts = counts_at(spec, spec.native_px)
    assert counts is not None and kind_of(name)
    assert counts.dense + counts.grouped == pytest.approx(spec.mega_macs, rel=0.12)
    for engine in read_costs()["engines"]:
        work = work_of(spec, 128, engine)
        assert work is not None and work > 0
        assert predict_bytes(spec, 128, 64, engine) > 4e6 * spec.parameters_m


def test_counts_lie_along_a_power_of_the_size() -> None:
    spec = find_spec("resnet18.a1_in1k")
    small, middle, large = (counts_at(spec, px) for px in (112, 158, 224))
    assert small is not None and middle is not None and large is not None
    for name, value in asdict(middle).items():
        low, high = getattr(small, name), getattr(large, name)
        assert value == pytest.approx(math.sqrt(low * high), rel=0.01, abs=1e-9)


def test_more_images_take_more_memory_until_an_engine_has_enough_at_a_time() -> None:
    spec = find_spec("convnext_tiny.in12k")
    counts = counts_at(spec, 224)
    assert counts is not None
    of_engine = read_costs()["engines"]["eager"]["bytes"]
    more = predict_bytes(spec, 224, 64) - predict_bytes(spec, 224, 32)
    assert more == pytest.approx(32 * of_engine["activations"] * counts.peak * MIB, rel=1e-3)
    for engine in ("openvino", "onnxruntime"):
        assert predict_bytes(spec, 224, 64, engine) == predict_bytes(spec, 224, 1000, engine)


def test_loading_two_copies_is_the_peak_where_images_are_few() -> None:
    spec = find_spec("vit_base_patch16_224.dino")
    fixed = MIB * read_costs()["engines"]["eager"]["bytes"]["fixed"]
    assert predict_bytes(spec, 32, 1) == pytest.approx(2 * 4e6 * spec.parameters_m + fixed, rel=1e-6)


def test_what_was_not_counted_has_a_generous_figure_and_no_seconds() -> None:
    assert counts_at(UNKNOWN, 128) is None and work_of(UNKNOWN, 128) is None and kind_of(UNKNOWN.name) == ""
    assert predict_bytes(UNKNOWN, 128, 64) > 400 * 128**2 * 64


def test_an_engine_that_refuses_a_kind_counts_as_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("resnet18.a1_in1k")
    engine = {"seconds": {"dense": 1.0}, "kinds": {}, "refused": ["residual"], "bytes": {}}
    monkeypatch.setitem(read_costs()["engines"], "odd", engine)
    assert not runs_on(spec, "odd") and runs_on(find_spec("vit_small_patch16_224.dino"), "odd")
    assert work_of(spec, 128, "odd") == work_of(spec, 128) == work_of(spec, 128, "another")
