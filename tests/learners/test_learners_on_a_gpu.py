"""Every learner is trained, saved, loaded and answers on a GPU that is pretended: nothing mixes devices or asks NumPy
for what is on the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretend_gpu import Card
from synthetic import colour_pool
from transfer_cases import QUICK

from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.learners.augmentation import Augmentation
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import LEARNERS, Recipe
from autometa.learners.trained import TrainedLearner
from autometa.learners.training_settings import TrainingSettings
from autometa.model.load import load_learner
from autometa.systems.single_learner import SingleLearnerSystem

POOL = colour_pool(classes=16, per_class=8, px=16)
TEST = TestSpec(4, EpisodeSpec((2, 4), (1, 2), 3), 60, "within-domain")
STEPS = 4
OPTIONS = QUICK | {"reptile": {"steps": 2, "test_steps": 2}}
CONV = EncoderSpec(network="conv4", px=16, channels=4)


LARGE_POOL = colour_pool(classes=16, per_class=10, px=32)
LARGE_TEST = TestSpec(4, EpisodeSpec((4, 5), (1, 3), 5), 60, "within-domain")


def trained(
    recipe: Recipe, folder: Path, test: TestSpec = TEST, pool: ImagePool = POOL
) -> tuple[TrainedLearner, list[str]]:
    """After a few steps on the device of this machine, and what was said."""
    lines: list[str] = []
    limits = Limits(TimeBudget.of(300.0), TimeBudget.of(400.0), MemoryBudget(8 * 2**30))
    system = SingleLearnerSystem(recipe, test, limits, folder, lines.append, start_s=0.1)
    system.bootstrap()
    return system.run(pool), lines


def recipe_of(name: str, encoder: EncoderSpec = CONV, meta_batch: int = 2, **more: Any) -> Recipe:
    training = TrainingSettings(max_steps=STEPS, validate_every=2, meta_batch=meta_batch)
    options = OPTIONS.get(name, {})
    return Recipe(
        learner=name, encoder=encoder, options=options, training=training, validation_episodes=8, **more
    )


def check_answers(learner: TrainedLearner) -> None:
    """Two tasks of different forms."""
    for ways, shots in ((3, 2), (4, 1)):
        support = np.concatenate([POOL.rows_of_class[c][:shots] for c in range(ways)])
        query = np.array([POOL.rows_of_class[c][5] for c in range(ways)])
        labels = np.repeat(np.arange(ways), shots)
        answer = learner.fit(POOL.images[support], labels, ways).predict(POOL.images[query])
        assert answer.shape == (ways, ways)
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_is_trained_saved_loaded_and_answers(name: str, gpu: Card, tmp_path: Path) -> None:
    fitted, lines = trained(recipe_of(name), tmp_path)
    assert fitted.validation["stage"] == "final", lines
    done = 0 if name == "train_from_scratch" else STEPS
    assert any(line.startswith(f"{name}: {done} steps in") for line in lines), lines
    assert all(parameter.is_cuda for parameter in fitted.learner.parameters())
    assert gpu.operations > 0
    check_answers(fitted)
    again = load_learner(tmp_path)
    assert isinstance(again, TrainedLearner)
    assert all(parameter.is_cuda for parameter in again.learner.parameters())
    check_answers(again)
    assert not gpu.refused


@pytest.mark.medium
@pytest.mark.parametrize("trainable", [0, 1])
@pytest.mark.parametrize(
    "name", ["prototypical", "maml", "reptile", "simpleshot", "metadelta_plus_plus", "pmf"]
)
def test_so_is_one_on_a_backbone(
    name: str, trainable: int, gpu: Card, tiny_backbone: str, tmp_path: Path
) -> None:
    encoder = EncoderSpec(network=tiny_backbone, px=32, trainable=trainable)
    more: dict[str, Any] = (
        {"augmentation": Augmentation(flip=True, shift=0.125), "copies": 2} if trainable else {}
    )
    fitted, lines = trained(recipe_of(name, encoder, **more), tmp_path)
    assert fitted.validation["stage"] == "final", lines
    assert gpu.operations > 0
    check_answers(fitted)
    again = load_learner(tmp_path)
    assert isinstance(again, TrainedLearner)
    check_answers(again)
    assert not gpu.refused


@pytest.mark.medium
@pytest.mark.parametrize("name", ["prototypical", "relation"])
def test_a_smaller_card_is_enough(name: str, gpu: Card, tmp_path: Path) -> None:
    encoder = EncoderSpec(network="conv4", px=32, channels=8)
    recipe = recipe_of(name, encoder, meta_batch=8)
    steps = f"{name}: {STEPS} steps in"
    _, lines = trained(recipe, tmp_path, LARGE_TEST, LARGE_POOL)
    assert any(line.startswith(steps) for line in lines), lines
    gpu.total_bytes, gpu.peak_bytes = gpu.peak_bytes // 2, 0
    _, lines = trained(recipe, tmp_path / "again", LARGE_TEST, LARGE_POOL)
    assert any(line.startswith(steps) for line in lines), lines
    assert 0 < gpu.peak_bytes <= gpu.total_bytes
    assert gpu.ran_out == 0, "what a step takes was predicted"
