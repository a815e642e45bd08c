"""The steps of one training run, one by one, on a small network and synthetic images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.core.budget import TimeBudget
from autometa.core.errors import DataError
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.learners.encoder import EncoderSpec
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.learners.training_run import (
    TrainingData,
    TrainingListener,
    build_pool_source,
    build_untrained,
    count_affordable,
    hold_out_classes,
    measure_costs,
    select_labels,
    train_learner,
)
from autometa.learners.training_settings import TrainingSettings

POOL = colour_pool(classes=12)
TEST = EpisodeSpec((2, 4), (1, 3), 4)
PX = 16


def untrained(learner: str = "prototypical", test: EpisodeSpec = TEST, **settings: Any) -> TrainedLearner:
    training = TrainingSettings(**{"max_steps": 20, "validate_every": 5} | settings)
    encoder = EncoderSpec(network="conv4", px=PX, channels=8)
    return build_untrained(Recipe(learner=learner, encoder=encoder, training=training), test)


def data_for(fitted: TrainedLearner) -> TrainingData:
    inputs = fitted.learner.encoder.prepare(POOL.images)
    classes, episodes = hold_out_classes(POOL, TEST, share=0.25, episodes=20, rng=np.random.default_rng(0))
    return TrainingData(inputs, build_pool_source(fitted, inputs, POOL, classes, TEST), episodes)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_learner_that_cares_is_told_whether_the_test_is_balanced(balanced: bool) -> None:
    fitted = untrained("metadelta_plus_plus", EpisodeSpec((2, 4), (1, 3), 4, balanced=balanced))
    assert bool(fitted.learner.state_dict()["balanced"]) == balanced


def test_costs_are_measured_on_a_few_images_and_a_task() -> None:
    costs = measure_costs(untrained(), PreparedImages(POOL.images), TEST)
    assert min(costs.image_s, costs.task_s, costs.load_s) > 0
    assert costs.image_bytes == 3 * PX * PX


@pytest.mark.parametrize(("seconds", "room", "most"), [(13.0, 1e9, 100), (1e9, 7e3, 70), (-1.0, 1e9, 0)])
def test_as_many_images_are_affordable_as_time_and_room_allow(
    seconds: float, room: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Storage, "room_bytes", lambda _: room)
    costs = TrainedCosts(image_s=0.13 / POLICY.slowdown, image_bytes=100)
    assert count_affordable(costs, seconds, Storage()) == pytest.approx(most, abs=1)


def test_classes_are_trained_on_or_validated_on() -> None:
    classes, episodes = hold_out_classes(POOL, TEST, share=0.25, episodes=30, rng=np.random.default_rng(0))
    validated = {int(POOL.labels[row]) for e in episodes.episodes for row in (*e.support_rows, *e.query_rows)}
    assert len(episodes.episodes) == 30 and validated.isdisjoint(classes)
    few = select_labels(POOL, np.flatnonzero(POOL.labels < 1))
    with pytest.raises(DataError, match="no episode can be drawn"):
        hold_out_classes(few, TEST, share=0.25, episodes=1, rng=np.random.default_rng(0))


def test_labels_without_images_keep_the_pool_in_other_respects() -> None:
    part = select_labels(POOL, np.array([5, 2]))
    assert part.images.shape == (2, 3, 1, 1) and part.datasets == POOL.datasets
    assert part.labels.tolist() == POOL.labels[[5, 2]].tolist()


def test_training_improves_the_learner_and_says_so() -> None:
    fitted, lines, better = untrained(learning_rate=0.01), list[str](), list[Answer]()
    listener = TrainingListener(lines.append, better.append)
    record = train_learner(fitted, data_for(fitted), TimeBudget.of(60), listener=listener)
    assert record.best.mean >= record.untrained.mean and record.steps == 20
    assert record.best.log_loss < record.untrained.log_loss / 2
    assert fitted.validation == {"stage": "final", "steps": 20, **record.best.figures()}
    assert record.summary().startswith("20 steps in ") and " before, " in record.summary()
    assert any(line.startswith("untrained: ") for line in lines)
    assert better and better[-1] is record.best
