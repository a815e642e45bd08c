"""The prepared images that a trained learner keeps take the memory that they are counted with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autometa.learners import trained
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner

PX, CALL = 16, 25
RECIPE = Recipe(encoder=EncoderSpec(network="conv4", px=PX, channels=4, pools=2))


def held_bytes(learner: TrainedLearner) -> int:
    """Of all storages that prepared images are in."""
    storages = [row.untyped_storage() for row in learner._prepared.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_images_that_are_kept_do_not_keep_those_of_the_same_call(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 100 * 3 * PX * PX
    monkeypatch.setattr(trained, "REMEMBERED_BYTES", limit)
    learner, rng = TrainedLearner.untrained(RECIPE), np.random.default_rng(0)
    pool = rng.integers(0, 256, (400, 3, PX, PX), dtype=np.uint8)
    trimmed = 0
    for _ in range(60):
        before = len(learner._prepared)
        images = pool[rng.choice(len(pool), CALL, replace=False)]
        prepared = learner.prepare(images)
        assert torch.equal(prepared, torch.from_numpy(images))
        counted = sum(row.nbytes for row in learner._prepared.values())
        assert held_bytes(learner) == counted <= limit
        trimmed += len(learner._prepared) < before
    assert trimmed > 5
