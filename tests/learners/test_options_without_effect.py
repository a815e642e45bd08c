"""What is asked for is done, or refused: no option is taken without an effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from learner_cases import TINY

from autometa.core.errors import ConfigError
from autometa.core.settings import validate_settings
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe, in_steps, read_options
from autometa.learners.trained import TrainedLearner

MLP = EncoderSpec(network="mlp", px=16, channels=4)


@pytest.mark.parametrize(
    "options", [{"tasks": "cores"}, {"tasks": "vmap"}, {"first_order": True}, {"task_memory": 2.0}]
)
def test_reptile_refuses_what_it_does_not_do(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"options of reptile: {next(iter(options))}"):
        read_options(Recipe(learner="reptile", options=options))


def test_reptile_takes_what_it_does_anyway() -> None:
    recipe = in_steps(Recipe(learner="reptile", options={"first_order": False, "task_memory": None}), 10)
    assert recipe.options["tasks"] == "loop"
    assert read_options(recipe).model_dump()["first_order"] is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"trainable": 2},
            r"trainable: 2 has no effect on conv4 \(trained from scratch\): leave it out",
        ),
        ({"network": "mlp", "trainable": "all"}, "trainable: all has no effect on mlp"),
        ({"network": "test_resnet", "channels": 32}, "channels: 32 has no effect on test_resnet"),
        (
            {"network": "test_resnet", "pools": 1},
            r"pools: 1 has no effect on test_resnet \(pretrained\)",
        ),
        ({"network": "test_resnet", "drop_block": 0.1}, r"drop_block: 0\.1 has no effect .* leave it out"),
    ],
)
def test_an_encoder_refuses_what_has_no_effect_on_its_network(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_settings(EncoderSpec, values, "encoder")


@pytest.mark.parametrize("network", ["conv4", "mlp", "test_resnet"])
def test_an_encoder_with_all_its_defaults_is_read_again(network: str) -> None:
    spec = EncoderSpec(network=network)
    assert EncoderSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("learner", "encoder", "options"),
    [
        ("prototypical", {"trainable": 2}, {}),
        ("reptile", {}, {"tasks": "cores", "first_order": True, "task_memory": 3.0}),
        ("lstm_meta_learner", {}, {"tasks": "vmap", "task_memory": 3.0}),
    ],
)
def test_saved_learners_that_say_what_has_no_effect_load(
    learner: str, encoder: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    TrainedLearner.untrained(Recipe(learner=learner, encoder=TINY)).save(tmp_path)
    file = tmp_path / "learner.json"
    saved = json.loads(file.read_text())
    saved.pop("checksum", None)
    saved["recipe"]["encoder"] |= encoder
    saved["recipe"]["options"] |= options
    file.write_text(json.dumps(saved))
    recipe = TrainedLearner.load(tmp_path).recipe
    assert recipe.encoder == TINY
    assert read_options(recipe) == read_options(Recipe(learner=learner))
