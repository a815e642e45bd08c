"""A training of so many steps ends with the same bits, however fast the machine was."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from synthetic import FakeClock, colour_pool

from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.learners.augmentation import Augmentation
from autometa.learners.encoder import EncoderSpec
from autometa.learners.metric.prototypical import Prototypical
from autometa.learners.recipe import LEARNERS, Recipe, adjust_recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.systems.single_learner import SingleLearnerSystem

POOL = colour_pool(classes=16, per_class=8, px=16)
TEST = TestSpec(4, EpisodeSpec((2, 4), (1, 2), 3), 60, "within-domain")
STEPS = 3
SETTINGS = Settings(max_steps=STEPS, validation_episodes=10)


class Moody(FakeClock):
    """A clock that moves by a second or by none whenever it is read."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def __call__(self) -> float:
        self.now += self._random.choice([0.0, 1.0])
        return self.now


def recipe_of(name: str) -> Recipe:
    options = {"steps": 2, "test_steps": 2} if name == "reptile" else {}
    return Recipe(learner=name, encoder=EncoderSpec(network="conv4", px=16, channels=4), options=options)


def digest_after(recipe: Recipe, folder: Path, seed: int, budget_s: float = 1e5) -> tuple[str, list[str]]:
    return digest_by(Moody(seed), recipe, folder, seed, budget_s)


def digest_by(
    clock: FakeClock, recipe: Recipe, folder: Path, seed: int, budget_s: float
) -> tuple[str, list[str]]:
    lines: list[str] = []
    folder.mkdir()
    limits = Limits(TimeBudget.of(budget_s, clock), TimeBudget.of(2e5, clock), MemoryBudget(8 * 2**30))
    torch.manual_seed(seed)  # whatever came before
    adjusted = adjust_recipe(recipe, SETTINGS)
    system = SingleLearnerSystem(adjusted, TEST, limits, folder, lines.append, start_s=0.1)
    system.bootstrap()
    learner = system.run(POOL).learner
    parts = [f"{key}{tensor.numpy().tobytes()!r}" for key, tensor in sorted(learner.state_dict().items())]
    return hashlib.sha256("".join(parts).encode()).hexdigest(), lines


@pytest.mark.medium
@pytest.mark.parametrize("name", LEARNERS)
def test_two_trainings_end_with_the_same_bits(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    (one, lines), (other, _) = (digest_after(recipe, tmp_path / str(seed), seed) for seed in (1, 2))
    assert one == other
    done = "0 steps" if name == "train_from_scratch" else f"{STEPS} steps"
    assert any(line.startswith(f"{name}: {done} in") for line in lines), lines


@pytest.mark.medium
@pytest.mark.parametrize("name", ["prototypical", "maml", "metadelta_plus_plus"])
def test_so_do_trainings_of_the_last_stage_on_copies_of_images(
    name: str, tiny_backbone: str, tmp_path: Path
) -> None:
    recipe = Recipe(
        learner=name,
        encoder=EncoderSpec(network=tiny_backbone, px=16, trainable=1),
        augmentation=Augmentation(flip=True, shift=0.125),
        copies=2,
    )
    (one, lines), (other, _) = (digest_after(recipe, tmp_path / str(seed), seed) for seed in (1, 2))
    assert one == other
    assert any(line.startswith(f"{name}: {STEPS} steps in") for line in lines), lines


@pytest.mark.medium
def test_so_do_trainings_in_other_processes(tmp_path: Path) -> None:
    here = Path(__file__)
    code = (
        "import sys; from pathlib import Path; from test_repeatable import digest_after, recipe_of;"
        "print(digest_after(recipe_of('maml'), Path(sys.argv[1]), int(sys.argv[2]))[0])"
    )
    paths = os.pathsep.join([str(here.parents[2]), str(here.parents[1]), str(here.parent)])
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(tmp_path / seed), seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_validation_episodes_that_the_budget_does_not_hold_end_it_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, validate = FakeClock(), Prototypical.validate

    def slow(self: Prototypical, *rest: Any) -> Any:
        clock.now += 9
        return validate(self, *rest)

    monkeypatch.setattr(Prototypical, "validate", slow)
    _, lines = digest_by(clock, recipe_of("prototypical"), tmp_path / "model", 1, budget_s=25.0)
    (told,) = [line for line in lines if "validation episodes take" in line]
    assert "10 validation episodes take 22 s" in told
    assert "set validation_episodes to fewer, or give more time" in told


def test_options_and_settings_say_what_they_need() -> None:
    assert adjust_recipe(recipe_of("maml"), SETTINGS).options == {"tasks": "loop"}
    assert adjust_recipe(recipe_of("snail"), SETTINGS).options == {}
    assert adjust_recipe(recipe_of("maml"), Settings()).options == {}
    assert adjust_recipe(recipe_of("maml"), Settings()).training.patience is None  # it has its whole budget
    assert adjust_recipe(recipe_of("snail"), Settings(meta_batch=32)).training.meta_batch == 32
    assert adjust_recipe(recipe_of("snail"), Settings()).training.meta_batch == 4
    with pytest.raises(ValidationError, match="a repeatable training needs max_steps and validate_every"):
        TrainingSettings(repeatable=True, max_steps=5)
