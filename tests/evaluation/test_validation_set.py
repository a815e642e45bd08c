"""The validation set: which classes and images are held out, and what metrics are fitted on."""

from __future__ import annotations

import numpy as np
from synthetic import colour_pool

from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_set import ValidationSet

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")


def test_the_validation_set_keeps_classes_and_images_apart() -> None:
    pool = colour_pool(classes=16, datasets=2)
    validation_set = ValidationSet.of(pool, TEST, 10, 10_000, np.random.default_rng(0))
    labels = pool.labels[validation_set.keys]
    assert set(labels[: validation_set.size]).isdisjoint(labels[validation_set.size :])
    assert len(set(validation_set.keys)) == len(validation_set.keys)
    rows = np.concatenate([e.query_rows for e in validation_set.episodes.episodes])
    assert rows.max() < validation_set.size
    assert validation_set.episodes.episodes != validation_set.fresh.episodes
