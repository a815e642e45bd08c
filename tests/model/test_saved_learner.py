"""Learners that were saved by earlier releases still load and answer as they did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from synthetic import colour_pool

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
