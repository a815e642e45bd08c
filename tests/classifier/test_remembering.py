"""How many examples a saved classifier remembers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic import FakeClock, colour_pool

from autometa.classifier.remembering import REMEMBERED, TIMED, Examples, Room, choose_examples
from autometa.core.budget import TimeBudget

POOL = colour_pool(classes=10, per_class=30)
NAMES = [f"class {n}" for n in range(10)]


def chosen(
    image_s: float, left_s: float, start_s: float = 0.0
) -> tuple[Any, list[str], list[str], FakeClock]:
    """What is chosen where an image takes so long, engines take `start_s` to build, and so much time is left."""
    clock, lines, started = FakeClock(), list[str](), list[bool]()

    def encode(images: np.ndarray, ahead: int = 0) -> dict[str, Any]:
        assert images.dtype == np.uint8 and ahead == 10 * REMEMBERED
        clock.now += image_s * len(images) + (0.0 if started else start_s)
        started.append(True)
        return {}

    source: Any = SimpleNamespace(space=SimpleNamespace(encode=encode))
    budget = TimeBudget.of(left_s, clock)
    images, names = choose_examples(source, Examples(POOL, NAMES, 0), Room(None, 0), budget, lines.append)
    return images, names, lines, clock


def test_with_time_each_class_has_the_usual_number() -> None:
    images, names, lines, _ = chosen(0.01, 100.0)
    assert images.shape == (10 * REMEMBERED, *POOL.images.shape[2:], 3) and not lines
    assert {name: names.count(name) for name in NAMES} == dict.fromkeys(NAMES, REMEMBERED)


@pytest.mark.parametrize(("image_s", "left_s", "each"), [(0.1, 30.0, 10), (1.0, 160.0, 1), (1.0, 1.0, 1)])
def test_without_time_there_are_fewer_but_one_of_each(image_s: float, left_s: float, each: int) -> None:
    images, names, lines, clock = chosen(image_s, left_s)
    assert [names.count(name) for name in NAMES] == [each] * 10
    assert lines == [
        f"{each} examples of each class are remembered, not {REMEMBERED}: no time is left to encode more"
    ]
    if each > 1:
        assert image_s * len(images) <= left_s - (clock.now - 100.0)
    more, _, _, _ = chosen(0.0, 30.0)
    kept = {image.tobytes() for image in more}
    assert all(image.tobytes() in kept for image in images), "fewer are a part of more"


def test_building_engines_does_not_count_as_encoding() -> None:
    _, _, lines, _ = chosen(0.001, 60.0, start_s=20.0)
    assert not lines and 2 * TIMED < 10 * REMEMBERED
