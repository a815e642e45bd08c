"""Which backbones are worth trying, before any is built or downloaded."""

from __future__ import annotations

import pytest

from autometa.backbones import BackboneSpec
from autometa.search.candidates import PROBE_S, Room, choose_backbones, newness, order_by_gain, weight_bytes


def spec(name: str, pretraining: str = "ImageNet-1k", parameters_m: float = 1.0) -> BackboneSpec:
    return BackboneSpec(name, name, parameters_m, 224, "none", pretraining=pretraining)


LITE, RESNET, VIT = spec("tf_efficientnet_x"), spec("resnet_x"), spec("vit_x", "LVD-142M")
SECONDS = {LITE.name: 0.001, RESNET.name: 0.001, VIT.name: 0.00105}


def image_s(one: BackboneSpec) -> float | None:
    return SECONDS.get(one.name)


def test_what_differs_in_kind_and_pretraining_is_new() -> None:
    assert newness(VIT, [LITE]) == newness(LITE, []) == 1.0
    assert newness(spec("tf_efficientnet_y"), [LITE]) < newness(RESNET, [LITE]) < 1.0
    assert newness(RESNET, [VIT, LITE]) == newness(RESNET, [LITE])


def test_the_order_is_by_gain_per_second() -> None:
    unknown = spec("unknown")
    ordered = order_by_gain([unknown, LITE, RESNET, VIT], 100_000, image_s)
    assert [one.name for one in ordered] == [LITE.name, VIT.name, RESNET.name, "unknown"]
    assert order_by_gain([RESNET, VIT], 100_000, image_s, held=[VIT])[0] == RESNET


def test_where_images_are_few_those_that_need_no_race_come_first() -> None:
    alike = spec("tf_efficientnet_y")
    ordered = order_by_gain([VIT, alike], 500, lambda _: 0.001, held=[LITE])
    assert [one.name for one in ordered] == [alike.name, VIT.name]
    ordered = order_by_gain([VIT, alike], 500, lambda _: 0.001)
    assert [one.name for one in ordered] == [VIT.name, alike.name], "both need a race"


@pytest.mark.parametrize(
    ("room", "names"),
    [
        (Room(1000.0, 1e10, 1000), {LITE.name, VIT.name, RESNET.name}),
        (Room(2 * PROBE_S + 3.0, 1e10, 1000), {LITE.name}),
        (Room(1000.0, 1e6, 1000), set()),
        (Room(1000.0, 1e10, 1000, download_bytes=weight_bytes(VIT)), {LITE.name, VIT.name}),
        (Room(1000.0, 1e10, 10**8), set()),
    ],
)
def test_only_what_there_is_room_for_is_chosen(room: Room, names: set[str]) -> None:
    chosen = choose_backbones([LITE, RESNET, VIT, spec("unknown")], room, image_s, lambda one: one is LITE)
    assert {one.name for one in chosen} == names
