from __future__ import annotations

from autometa.backbones.engines import EAGER, ENGINES, split_by_room

WEIGHTS = 14_000_000


def test_engines_are_taken_as_far_as_memory_allows() -> None:
    every, notes = split_by_room(ENGINES, WEIGHTS, None)
    assert every == ENGINES and notes == {}
    few, notes = split_by_room(ENGINES, WEIGHTS, 120_000_000)
    assert EAGER in few and notes.keys() == ENGINES.keys() - few.keys() >= {
        "openvino",
        "onnxruntime",
        "compiled",
    }
    some, notes = split_by_room(ENGINES, WEIGHTS, 200_000_000)
    assert {EAGER, "openvino", "onnxruntime"} <= some.keys() and notes.keys() == {"compiled"}


def test_a_graph_that_batches_would_never_fill_is_not_built() -> None:
    some, notes = split_by_room(ENGINES, WEIGHTS, None, lambda precision: 64 if precision == "half" else 256)
    assert notes == {"graph-float16": "is for batches of 256, memory is for 64"} and "eager-float16" in some
    some, notes = split_by_room(ENGINES, WEIGHTS, None, lambda precision: 256 if precision == "half" else 64)
    assert not notes, "it goes by what half precision takes"


def test_a_larger_network_needs_more_room() -> None:
    spec = ENGINES["openvino"]
    assert spec.room_bytes(2 * WEIGHTS) > spec.room_bytes(WEIGHTS) > WEIGHTS
    assert ENGINES[EAGER].room_bytes(WEIGHTS) == 0
