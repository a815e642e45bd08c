"""The benchmark of learners on the classes of a class split, and with rotations as classes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import write_meta_album

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from ingestion import InputError
from ingestion.class_splits import ClassSplit

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

_learner_data: Any = importlib.import_module("_learner_data")
_learner_settings: Any = importlib.import_module("_learner_settings")
_learner_units: Any = importlib.import_module("_learner_units")

CLASSES = [f"class {number}" for number in range(10)]
SPLIT = ClassSplit(tuple(CLASSES[4:]), ("class 0", "class 3"), ("class 1", "class 2"))
SPEC = EncoderSpec(network="conv4", px=28)


@pytest.fixture(autouse=True)
def forget() -> None:
    for kept in (_learner_data.load, _learner_data.prepared):
        kept.cache_clear()


def settings_of(data: Path, **more: Any) -> Any:
    numbers: dict[str, Any] = {"seconds": 1.0, "tests": 8, "validations": 8, "reference_steps": 1}
    return _learner_settings.Settings(data, seeds=(0,), ways=2, shots=1, **numbers, **more)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_meta_album(tmp_path / "SET", [7] * len(CLASSES))
    return tmp_path


def test_classes_of_the_split_are_used(data: Path) -> None:
    settings = settings_of(data, split=SPLIT)
    found = settings.dataset("SET")
    labels = found.pool.labels
    for tasks, expected in ((found.test_tasks(20), {1, 2}), (found.validation_tasks(20), {0, 3})):
        assert {int(labels[row]) for task in tasks.episodes for row in task.query_rows} == expected
    recipe = Recipe(encoder=SPEC, ways=(2, 2), shots=(1, 1), queries_per_class=1)
    inputs = settings.inputs("SET", SPEC)
    batches = [found.source(inputs, recipe).sampler.draw(16)[0] for _ in range(4)]
    drawn = {int(labels[row]) for batch in batches for row in batch.support_rows.flatten()}
    assert drawn == set(range(4, 10))
    assert f"class split {SPLIT.digest}" in str(settings) and "class split" not in str(settings_of(data))


def test_rotated_classes_are_classes_to_fit_on(data: Path) -> None:
    settings = settings_of(data, split=SPLIT, rotates=True)
    found, inputs = settings.dataset("SET"), settings.inputs("SET", SPEC)
    plain, rows = settings_of(data).inputs("SET", SPEC), np.flatnonzero(np.isin(found.pool.labels, found.fit))
    assert torch.equal(inputs[: len(plain)], plain)
    assert len(inputs) == len(plain) + 3 * len(rows)
    assert torch.equal(inputs[len(plain) + len(rows)], plain[rows[0]].rot90(2, (1, 2)))
    source = found.source(inputs, Recipe(encoder=SPEC, ways=(20, 20), shots=(1, 1), queries_per_class=1))
    assert source.classes == 4 * 6
    numbers = source.draw(8).classes
    assert numbers is not None and {int(n) for n in numbers.flatten()} == set(range(24))
    untouched = settings_of(data, split=SPLIT).dataset("SET").source(plain, Recipe(encoder=SPEC))
    assert untouched.classes == 6 and "rotations as classes" in str(settings)


def test_what_does_not_fit_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="no class to validate on, which learners of SET need"):
        settings_of(data, split=ClassSplit(SPLIT.train, (), SPLIT.test)).dataset("SET")
    with pytest.raises(InputError, match="SET has no class `class 77`; nearest"):
        settings_of(data, split=ClassSplit(("class 77",), ("class 0",), ("class 1",))).dataset("SET")
    with pytest.raises(InputError, match=r"split\.json: is for one dataset, not for A, B"):
        _learner_settings.split_of_one(data / "split.json", ["A", "B"])
    assert _learner_settings.split_of_one(None, ["A", "B"]) is None


def test_inner_steps_are_those_of_gradient_based_learners() -> None:
    recipe = _learner_units.Unit("any", "conv4", "maml").recipe(inner_steps=3)
    assert recipe.options["steps"] == recipe.options["test_steps"] == 3
    other = _learner_units.Unit("any", "conv4", "relation")
    assert other.recipe(inner_steps=3) == other.recipe()


def test_a_pretrained_network_has_settings_of_its_own_beside_the_others() -> None:
    recipe = _learner_units.Unit("any", "tf_efficientnet_lite0", "reptile").recipe(seed=5)
    assert recipe.options["head"] == "prototypes" and recipe.queries_per_class == 10
    assert recipe.training.optimizer == "adam" and recipe.training.clip is None and recipe.training.seed == 5
