"""Learners that were saved by earlier releases still load and answer as they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.trained import TrainedLearner
from autometa.model.fitted_learner import FittedLearner

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_learner_saved_by_the_first_release_still_answers() -> None:
    pool = colour_pool(classes=8, per_class=6)
    support = np.concatenate([pool.rows_of_class[c][:2] for c in range(4)])
    one, other = (
        np.array([pool.rows_of_class[c][4] for c in classes]) for classes in ([0, 1, 2, 3], [1, 2, 3, 0])
    )
    between = ((pool.images[one].astype(int) + pool.images[other]) // 2).astype(np.uint8)
    saved = FittedLearner.load(GOLDEN / "learner_1")
    answer = saved.fit(pool.images[support], np.repeat(np.arange(4), 2), 4).predict(between)
    expected = json.loads((GOLDEN / "learner_1_probabilities.json").read_text())
    np.testing.assert_allclose(answer, expected, atol=2e-3)
    assert saved.validation == {"stage": "final", "normalised_accuracy": 0.5}


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("maml", {"steps": 2, "test_steps": 5}),
        ("maml_plus_plus", {"steps": 2, "adapt_norm": True}),
        ("pmf", {"steps": 20, "metric": "euclidean"}),
        ("cavia", {"steps": 2, "test_steps": 5, "conditioning": "class", "head": "zero"}),
    ],
)
def test_options_that_were_left_out_are_those_of_then(
    name: str, then: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe(
        learner=name, encoder=EncoderSpec(network="conv4", px=8, channels=2, pools=1), options=then
    )
    saved = TrainedLearner.untrained(recipe)
    saved.save(tmp_path)
    file = tmp_path / "learner.json"
    description = json.loads(file.read_text())
    assert description["recipe"]["options"] == saved.learner.options.model_dump(mode="json")
    description["recipe"]["options"] = {}
    del description["checksum"]
    file.write_text(json.dumps(description))
    loaded = TrainedLearner.load(tmp_path)
    assert loaded.learner.options == saved.learner.options
    assert build_learner(Recipe(learner=name, encoder=recipe.encoder)).options != saved.learner.options
