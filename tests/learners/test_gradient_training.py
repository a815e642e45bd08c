"""Optimisation-based learners learn within the training loop."""

from __future__ import annotations

from typing import Any

import pytest
from learner_cases import held_out, pool_source, red_pool

from autometa.core.budget import UNLIMITED
from autometa.data.episodes import EpisodeSpec
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.training import Training
from autometa.learners.training_settings import TrainingSettings

SPEC = EpisodeSpec(ways=(5, 5), shots=(1, 3), queries_per_class=4)
SMALL = EncoderSpec(network="conv4", px=8, channels=8, pools=2)
FITTED = 10
"""Classes of `red_pool` that are trained on."""
ADAM = {"learning_rate": 0.01}
SGD = {"optimizer": "sgd", "learning_rate": 1.0}


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "settings", "options"),
    [
        ("maml", ADAM, {}),
        ("fomaml", ADAM, {}),
        ("proto_maml", ADAM, {}),
        ("cavia", ADAM, {}),
        ("reptile", SGD, {"rate": 0.01, "test_steps": 20}),
    ],
)
def test_learners_improve(name: str, settings: dict[str, Any], options: dict[str, Any]) -> None:
    pool = red_pool()
    training = Training(
        build_learner(Recipe(learner=name, encoder=SMALL, options=options)),
        pool_source(pool, SPEC, classes=FITTED),
        held_out(pool, SPEC, FITTED, episodes=15),
        TrainingSettings(max_steps=40, validate_every=40, **settings),
        UNLIMITED,
    )
    record = training.run()
    assert record.steps == 40
    assert record.best.mean > record.untrained.mean + 0.05
