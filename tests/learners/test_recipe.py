"""Recipes: what may be asked for, and what the message is when it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from learner_cases import METRIC, TINY, built

from autometa.core.errors import ConfigError
from autometa.core.settings import validate_settings
from autometa.learners.recipe import LEARNERS, Recipe, build_learner, find_learner


def test_an_unknown_learner_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown learner `protonet`") as caught:
        build_learner(Recipe(learner="protonet"))
    assert all(name in str(caught.value) for name in LEARNERS)


def test_every_row_has_its_class() -> None:
    for name in METRIC:
        assert type(built(name)) is find_learner(name).cls


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("prototypical", {"metrik": "cosine"}, r"options of prototypical: unknown key `metrik`.*`metric`"),
        ("prototypical", {"metric": "manhattan"}, r"options of prototypical: metric = 'manhattan'.*cosine"),
        ("matching_fce", {"steps": "many"}, r"options of matching_fce: steps = 'many'"),
        ("relation", {"merge": "max"}, r"options of relation: merge = 'max'.*'sum' or 'mean'"),
        ("siamese", {"scale": 1.0}, r"options of siamese: unknown key `scale`"),
        ("matching", {"encoder": None}, r"options of matching: unknown key `encoder`"),
    ],
)
def test_a_wrong_option_is_named_in_the_message(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_learner(Recipe(learner=name, encoder=TINY, options=options))


@pytest.mark.parametrize("scale", [0.0, -1.0])
@pytest.mark.parametrize(
    ("name", "options"), [("matching", {}), ("matching_fce", {}), ("prototypical", {"metric": "cosine"})]
)
def test_a_scale_that_has_no_logarithm_is_refused(name: str, options: dict[str, Any], scale: float) -> None:
    with pytest.raises(ConfigError, match="scale"):
        build_learner(Recipe(learner=name, encoder=TINY, options=options | {"scale": scale}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learnr": "relation"}, "unknown key `learnr`; did you mean `learner`"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate = 0"),
        ({"encoder": {"px": 4}}, "encoder.px = 4"),
        ({"augmentation": {"shift": 2}}, "augmentation.shift = 2"),
    ],
)
def test_wrong_settings_are_named_in_the_message(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"recipe: {message}"):
        validate_settings(Recipe, values, "recipe")


def test_relation_networks_get_maps_that_are_halved_twice() -> None:
    assert built("relation").encoder.shape == (8, 4, 4)
    assert built("prototypical").encoder.shape == (8, 1, 1)
