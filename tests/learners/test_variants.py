"""Augmented copies of training images before a frozen trunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.core.budget import UNLIMITED
from autometa.core.errors import ConfigError
from autometa.core.settings import validate_settings
from autometa.data.episodes import EpisodeSpec
from autometa.learners.augmentation import Augmentation
from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.episodes import EpisodeSampler, PoolSource
from autometa.learners.recipe import Recipe
from autometa.learners.storage import MEMORY
from autometa.learners.variants import Variants

ROWS = np.array([1, 4, 5, 9])


def test_every_image_and_each_of_its_copies_is_drawn_and_nothing_else() -> None:
    variants = Variants(ROWS, 2, 10)
    asked = torch.from_numpy(np.tile(ROWS, (50, 1)))
    drawn = variants.draw(asked, np.random.default_rng(0)).numpy()
    for place, row in enumerate(ROWS):
        assert set(drawn[:, place]) == {row, 10 + place, 14 + place}


def test_copies_are_what_the_trunk_gives_for_changed_images(tiny_backbone: str) -> None:
    encoder = build_encoder(EncoderSpec(network=tiny_backbone, px=32, trainable=1))
    images = colour_pool(classes=2).images[:10]
    variants, rng = Variants(ROWS, 3, 10), np.random.default_rng(0)
    inputs = variants.prepare(encoder, images, Augmentation(flip=True), rng, (UNLIMITED, MEMORY))
    assert len(inputs) == 10 + 3 * 4
    torch.testing.assert_close(inputs[:10], encoder.prepare(images))
    ways = [encoder.prepare(images[ROWS]), encoder.prepare(images[ROWS][..., ::-1].copy())]
    seen = set()
    for place, copy in enumerate(inputs[10:]):
        distances = [float((copy - way[place % 4]).float().abs().max()) for way in ways]
        assert min(distances) < 1e-2
        seen.add(int(np.argmin(distances)))
    assert seen == {0, 1}


def test_a_source_gives_copies_of_the_images_that_it_draws() -> None:
    pool = colour_pool(classes=4)
    n = len(pool.images)
    rows = np.flatnonzero(pool.labels < 3)
    inputs = torch.cat([torch.arange(n), torch.from_numpy(np.tile(rows, 2)) + 1000])[:, None].float()
    sampler = EpisodeSampler(pool, np.arange(3), EpisodeSpec((2, 3), (1, 2), 2), np.random.default_rng(0))
    source = PoolSource(inputs, sampler, variants=Variants(rows, 2, n))
    values = torch.cat([source.draw(8).query.flatten() for _ in range(4)])
    assert set((values % 1000).int().tolist()) <= set(rows.tolist())
    assert 0.5 < float((values >= 1000).float().mean()) < 0.85


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"copies": 2}, "copies: 2 is for a frozen trunk and needs an augmentation"),
        ({"copies": 2, "augmentation": {"flip": True}, "encoder": {"network": "conv4"}}, "copies: 2 is for"),
        ({"augmentation": {"flip": True}}, "augmentation needs images"),
        ({"copies": 2, "augmentation": {"flip": True}, "data": "stream"}, "augmentation needs images"),
    ],
)
def test_copies_without_a_frozen_trunk_or_an_augmentation_are_refused(
    changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        validate_settings(Recipe, {"encoder": {"network": "tf_efficientnet_lite0"}} | changes, "recipe")
