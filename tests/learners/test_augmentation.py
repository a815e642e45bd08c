"""Augmentation of training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autometa.core.errors import ConfigError
from autometa.core.settings import validate_settings
from autometa.learners.augmentation import NO_AUGMENTATION, Augmentation


def images(n: int = 40, px: int = 10) -> torch.Tensor:
    return torch.randint(256, (n, 3, px, px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def augmented(augmentation: Augmentation, given: torch.Tensor, seed: int = 0) -> torch.Tensor:
    groups = np.arange(len(given)) // 4
    return augmentation(given.clone(), groups, np.random.default_rng(seed))


def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a == b).flatten(1).all(1)


def test_off_is_the_identity() -> None:
    assert not NO_AUGMENTATION.active
    assert not Augmentation().active
    assert Augmentation(flip=True).active
    assert torch.equal(augmented(NO_AUGMENTATION, images()), images())


def test_flip_mirrors_about_half() -> None:
    given = images(400)
    done = augmented(Augmentation(flip=True), given)
    kept, mirrored = same(done, given), same(done, given.flip(3))
    assert (kept ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_turn_turns_a_group_alike_and_groups_unlike() -> None:
    given = images(400)
    done = augmented(Augmentation(turn=True), given)
    turns = torch.stack([same(done, given.rot90(k, (2, 3))) for k in range(4)], dim=1)
    assert (turns.sum(1) == 1).all()
    of_group = turns.float().argmax(1).view(100, 4)
    assert (of_group == of_group[:, :1]).all()
    assert (torch.bincount(of_group[:, 0], minlength=4) > 10).all()


def test_shift_moves_the_content_and_repeats_the_border() -> None:
    given = images(200)
    done = augmented(Augmentation(shift=0.2), given)
    assert done.shape == given.shape
    padded = torch.nn.functional.pad(given.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    moved = torch.stack(
        [same(done, padded[:, :, y : y + 10, x : x + 10]) for y in range(5) for x in range(5)], dim=1
    )
    assert (moved.sum(1) == 1).all()
    assert (moved.sum(0) > 0).all(), "every offset of up to a fifth of the side"


def test_brightness_multiplies_each_image() -> None:
    grey = torch.full((300, 3, 4, 4), 100, dtype=torch.uint8)
    done = augmented(Augmentation(brightness=0.3), grey)
    assert done.dtype == torch.uint8
    level = done[:, 0, 0, 0].int()
    assert (done == level[:, None, None, None]).all()
    assert 70 <= level.min() < 75
    assert 125 < level.max() <= 130
    assert augmented(Augmentation(brightness=1.0), grey * 2).max() == 255


def test_the_same_seed_does_the_same() -> None:
    every = Augmentation(flip=True, shift=0.3, brightness=0.5, turn=True)
    assert torch.equal(augmented(every, images(), 1), augmented(every, images(), 1))
    assert not torch.equal(augmented(every, images(), 1), augmented(every, images(), 2))


@pytest.mark.parametrize(
    ("key", "value"), [("shift", 0.6), ("shift", -0.1), ("brightness", 1.5), ("turn", "maybe"), ("rotate", 1)]
)
def test_settings_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"settings.yaml: .*{key}"):
        validate_settings(Augmentation, {key: value}, "settings.yaml")


@pytest.mark.parametrize("given", [torch.zeros(2, 8, 1, 1), torch.zeros(2, 8, dtype=torch.uint8)])
def test_anything_but_images_is_refused(given: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="wants uint8 images"):
        Augmentation(flip=True)(given, np.zeros(2, dtype=np.int64), np.random.default_rng(0))
