"""How many examples a saved classifier remembers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.classifier.options import FitOptions
from autometa.classifier.remembering import (
    ENCODING_SHARE,
    FIRST,
    REMEMBERED,
    Examples,
    Room,
    count_images,
    encode_examples,
)
from autometa.classifier.training import _declare
from autometa.core.budget import TimeBudget

POOL = colour_pool(classes=10, per_class=30)
NAMES = [f"class {n}" for n in range(10)]


def chosen(
    image_s: float, left_s: float, start_s: float = 0.0
) -> tuple[list[str], list[str], float, torch.Tensor]:
    """Names of what is remembered, lines, the time that is left and the images themselves, where an image takes so
    long, engines take `start_s` to build, and so much time is left."""
    clock, lines, seen = FakeClock(), list[str](), list[np.ndarray]()

    def encode(images: np.ndarray, ahead: int = 0) -> dict[str, Any]:
        clock.now += image_s * len(images) + (0.0 if seen else start_s)
        seen.append(images)
        assert images.dtype == np.uint8 and ahead == 10 * REMEMBERED - sum(map(len, seen))
        return {"images": torch.from_numpy(images)}

    source: Any = SimpleNamespace(space=SimpleNamespace(encode=encode))
    budget = TimeBudget.of(left_s, clock)
    examples = Examples(POOL, NAMES, 0)
    encoded, names = encode_examples(source, examples, Room(None, 0), budget, lines.append)
    assert len(encoded["images"]) == len(names)
    return names, lines, budget.left_s(), encoded["images"]


def test_with_time_each_class_has_the_usual_number() -> None:
    names, lines, _, images = chosen(0.01, 100.0)
    assert images.shape == (10 * REMEMBERED, *POOL.images.shape[1:]) and not lines
    assert {name: names.count(name) for name in NAMES} == dict.fromkeys(NAMES, REMEMBERED)
    of_class = {POOL.images[row].tobytes(): POOL.labels[row] for row in range(len(POOL.images))}
    assert [NAMES[of_class[image.numpy().tobytes()]] for image in images] == names


@pytest.mark.parametrize(("image_s", "left_s", "each"), [(0.1, 25.0, 18), (1.0, 160.0, 12), (1.0, 1.0, 1)])
def test_without_time_there_are_fewer_but_one_of_each(image_s: float, left_s: float, each: int) -> None:
    names, lines, still_left_s, images = chosen(image_s, left_s)
    assert [names.count(name) for name in NAMES] == [each] * 10
    assert lines == [
        f"{each} examples of each class are remembered, not {REMEMBERED}: no time is left to encode more"
    ]
    if each > 1:
        assert still_left_s >= (1 - ENCODING_SHARE) * left_s
    more, _, _, all_images = chosen(0.0, 30.0)
    assert more[: len(names)] == names and torch.equal(all_images[: len(images)], images), "the first of more"


def test_building_engines_does_not_count_as_encoding() -> None:
    _, lines, _, _ = chosen(0.001, 60.0, start_s=20.0)
    assert not lines and 2 * FIRST < 10 * REMEMBERED


def test_classes_of_several_sizes_are_remembered_as_far_as_they_go() -> None:
    rows = np.concatenate([POOL.rows_of_class[0][:3], POOL.rows_of_class[1][:1], POOL.rows_of_class[2]])
    few = replace(POOL, images=POOL.images[rows], labels=POOL.labels[rows])
    examples = Examples(few, NAMES, 0)
    assert count_images(few, 1) == 3 and count_images(few, 2) == 5 and count_images(few, 99) == len(rows)
    first, rounds = examples.rows(REMEMBERED), [3, 2, 2]
    of_rounds = np.split(few.labels[first][: sum(rounds)], np.cumsum(rounds)[:-1])
    assert [sorted(each) for each in of_rounds] == [[0, 1, 2], [0, 2], [0, 2]]


def encode_many(image_s: float, left_s: float, classes: int) -> tuple[int, int]:
    """How many images are encoded, and how many kept, of many classes of three."""
    clock, seen = FakeClock(), list[int]()

    def encode(images: np.ndarray, ahead: int = 0) -> dict[str, Any]:
        clock.now += image_s * len(images)
        seen.append(len(images))
        return {"images": torch.from_numpy(images)}

    pool = colour_pool(classes=classes, per_class=3)
    source: Any = SimpleNamespace(space=SimpleNamespace(encode=encode))
    examples, budget = Examples(pool, [str(n) for n in range(classes)], 0), TimeBudget.of(left_s, clock)
    _, names = encode_examples(source, examples, Room(None, 0), budget, lambda line: None)
    return sum(seen), len(names)


def test_no_round_is_begun_that_does_not_fit() -> None:
    assert encode_many(0.01, 8.0, 200) == (600, 600)
    assert encode_many(0.01, 7.0, 200) == (400, 400)
    assert encode_many(0.01, 2.0, 200) == (200, 200)


def test_where_the_first_images_take_all_time_no_more_are_encoded() -> None:
    assert encode_many(2.0, 30.0, 10) == (16, 10)


def test_what_is_remembered_is_declared_as_the_images_of_one_test() -> None:
    """Its number of tasks is what the interval of the accuracy is told for."""
    test, limits = _declare(POOL, FitOptions(), TimeBudget.of(100.0))
    assert (test.tasks, test.images, test.embedded_images) == (1, 200, 200)
    assert 92 < limits.train.left_s() <= 93
