"""The validation set: which classes and images are held out, and what metrics are fitted on."""

from __future__ import annotations

import numpy as np
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_set import ValidationSet
from autometa.planning.plan import Costs

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
SMALL, LARGE = View("net", 64), View("net", 128)
COSTS = Costs(start_s=2.0, image_s={SMALL: 0.01, LARGE: 0.04})


def test_the_validation_set_keeps_classes_and_images_apart() -> None:
    pool = colour_pool(classes=16, datasets=2)
    validation_set = ValidationSet.of(pool, TEST, 10, 10_000, np.random.default_rng(0))
    labels = pool.labels[validation_set.keys]
    assert set(labels[: validation_set.size]).isdisjoint(labels[validation_set.size :])
    assert len(set(validation_set.keys)) == len(validation_set.keys)
    rows = np.concatenate([e.query_rows for e in validation_set.episodes.episodes])
    assert rows.max() < validation_set.size
    assert validation_set.episodes.episodes != validation_set.fresh.episodes


def test_metrics_are_fitted_on_all_classes_in_the_end() -> None:
    pool = colour_pool(classes=16)
    validation_set = ValidationSet.of(pool, TEST, 10, 10_000, np.random.default_rng(0))
    features = torch.randn(len(validation_set.keys), 6, generator=torch.Generator().manual_seed(0))
    features[: validation_set.size] += 5
    half = validation_set.metric(SMALL, features, "cl2n").mean
    whole = validation_set.metric(SMALL, features, "cl2n", every_class=True).mean
    assert half is not None and whole is not None
    torch.testing.assert_close(half, features[validation_set.size :].mean(0))
    torch.testing.assert_close(whole, features.mean(0))


def test_few_images_are_enough_to_rank_views() -> None:
    pool = colour_pool(classes=40)
    few = ValidationSet.small(
        pool, EpisodeSpec(ways=(2, 20), shots=(1, 20), queries_per_class=20), np.random.default_rng(0)
    )
    assert len(few.images) == len(few.keys) == few.size <= 200
    np.testing.assert_array_equal(few.images, pool.images[few.keys])
    assert {len(e.query_rows) // e.ways for e in few.episodes.episodes} == {4}
    assert max(e.ways for e in few.episodes.episodes) <= 10
