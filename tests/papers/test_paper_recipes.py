"""Every recipe of a published row is complete, builds its learner, and trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from autometa.backbones.architecture import create_model
from autometa.backbones.catalogue import CATALOGUE, find_spec
from autometa.backbones.local_weights import DIRECTORIES_VARIABLE
from autometa.core.errors import ConfigError
from autometa.data.images import ImagePool
from autometa.learners.encoder import SCRATCH, EncoderSpec, get_device
from autometa.learners.recipe import build_learner, find_learner
from autometa.papers.paper_data import PaperData
from autometa.papers.recipes import (
    FOLDER,
    NamedRecipe,
    PaperRecipe,
    Published,
    list_names,
    list_recipes,
    read_recipe,
)
from autometa.papers.reproduction import Reproduction

RECIPES = list_recipes()
IDS = [each.name for each in RECIPES]
TINY_TRANSFORMER = "test_vit"
EXAMPLE = "prototypical/omniglot-5way-1shot"


def with_tiny_transformer(encoder: EncoderSpec) -> EncoderSpec:
    """The encoder with a tiny transformer for a pretrained one, whose weights most machines do not have."""
    if encoder.network in SCRATCH:
        return encoder
    assert encoder.network.startswith("vit_") and CATALOGUE[encoder.network].native_px == encoder.px
    return encoder.model_copy(update={"network": TINY_TRANSFORMER})


def shrunken(recipe: PaperRecipe) -> PaperRecipe:
    """The same learner, network and pixels, with episodes of few images, and few inner steps; a ResNet is narrow, and
    a transformer tiny."""
    learning = recipe.learning
    ways = learning.options.get("ways", 3)
    few = {
        name: min(learning.options[name], 2) for name in ("steps", "test_steps") if name in learning.options
    }
    encoder = with_tiny_transformer(learning.encoder)
    if encoder.network == "resnet12":
        encoder = encoder.model_copy(update={"channels": 8})
    changes: dict[str, Any] = {
        "encoder": encoder,
        "options": learning.options | few,
        "training": learning.training.model_copy(update={"meta_batch": 1}),
        "ways": (ways, ways),
        "shots": (1, 1),
        "queries_per_class": 1,
        "validation_episodes": 1,
    }
    test = recipe.test.model_copy(update={"ways": ways, "shots": 1, "queries": 1})
    return recipe.model_copy(update={"learning": learning.model_copy(update=changes), "test": test})


def synthetic(px: int, classes: int) -> PaperData:
    """Random images, two of each class, as many classes in each split."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3 * classes), 2)
    images = rng.integers(256, size=(len(labels), 3, px, px), dtype=np.uint8)
    pool = ImagePool(images, labels, np.zeros(3 * classes, np.int64), ("random",))
    train, validation, test = np.split(np.arange(3 * classes), 3)
    return PaperData(pool, train, validation, test)


@pytest.fixture(scope="module")
def _random_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tiny transformer has random weights, and stays on one thread."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(create_model(find_spec(TINY_TRANSFORMER)).state_dict(), folder / f"{TINY_TRANSFORMER}.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIRECTORIES_VARIABLE, str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.mark.medium
@pytest.mark.usefixtures("_random_weights")
@pytest.mark.parametrize("named", RECIPES, ids=IDS)
def test_a_recipe_makes_two_steps_and_has_a_result(named: NamedRecipe, tmp_path: Path) -> None:
    small = shrunken(named.recipe)
    data = synthetic(small.px, small.test.ways)
    reproduction = Reproduction(NamedRecipe(named.name, small), steps=2, tasks=2)
    result = reproduction.run(data, tmp_path / "output", lambda line: None)
    assert (result.steps, result.tasks, result.ended) == (2, 2, "all steps made")
    assert result.shortened and 0 <= result.achieved.accuracy <= 100
    assert (tmp_path / "output" / "result.json").is_file()


@pytest.mark.medium
@pytest.mark.usefixtures("_random_weights")
@pytest.mark.parametrize("named", RECIPES, ids=IDS)
def test_a_recipe_builds_its_learner_as_it_says(named: NamedRecipe) -> None:
    recipe = named.recipe
    assert "px" in recipe.learning.encoder.model_fields_set, "the size of the images is written down"
    assert recipe.learning.ways and recipe.learning.shots and recipe.learning.queries_per_class
    prepared = recipe.prepared(0, None)
    encoder = with_tiny_transformer(prepared.encoder)
    learner = build_learner(prepared.model_copy(update={"encoder": encoder}))
    assert isinstance(learner, find_learner(recipe.learning.learner).cls)
    assert get_device(learner.encoder) == torch.device("cpu")
    images = torch.zeros(2, 3, recipe.px, recipe.px, dtype=torch.uint8)
    with torch.no_grad():
        inputs = learner.encoder.prepare(images.numpy())
        assert learner.eval().encoder(inputs).shape[0] == 2


def test_there_are_recipes_of_many_papers_and_datasets() -> None:
    assert len(RECIPES) >= 25 and len({each.recipe.paper for each in RECIPES}) >= 12
    assert {"omniglot", "mini_imagenet", "tiered_imagenet", "cifar_fs", "cub"} <= {
        r.recipe.data for r in RECIPES
    }
    assert list_names() == sorted(IDS)


def test_a_name_tells_ways_and_shots() -> None:
    for name, recipe in ((each.name, each.recipe) for each in RECIPES):
        assert name.endswith(f"-{recipe.test.ways}way-{recipe.test.shots}shot"), name


def test_a_training_ends_by_steps_and_depends_on_no_clock() -> None:
    recipe = read_recipe("maml/mini-5way-1shot").recipe
    training = recipe.prepared(7, None).training
    assert training.repeatable and training.patience is None and training.seed == 7
    assert (training.max_steps, training.validate_every) == (60000, 1000)
    assert recipe.prepared(7, None).options["tasks"] == "loop"
    short = recipe.prepared(0, 30).training
    assert (short.max_steps, short.validate_every) == (30, 30)


@pytest.mark.parametrize(
    ("accuracy", "interval", "shown"),
    [
        (98.7, 0.4, "98.7 ± 0.4"),
        (53.4, 0.63, "53.40 ± 0.63"),
        (96.0, None, "96.0"),
        (49.42, 0.78, "49.42 ± 0.78"),
    ],
)
def test_figures_are_shown_with_the_digits_of_the_paper(
    accuracy: float, interval: float | None, shown: str
) -> None:
    assert str(Published(accuracy=accuracy, interval=interval)) == shown


def changed(tmp_path: Path, **changes: Any) -> Path:
    content = yaml.safe_load((FOLDER / f"{EXAMPLE}.yaml").read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_recipe_of_the_user_is_read_from_its_file(tmp_path: Path) -> None:
    named = read_recipe(str(changed(tmp_path, test__ways=7)))
    assert named.name == "mine" and named.recipe.test.ways == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning__training__max_steps": None}, "needs max_steps and validate_every"),
        ({"learning__data": "stream"}, "only pool has the classes"),
        (
            {"learning__learner": "maml", "learning__options": {"head": "learned", "ways": 9}},
            "tasks have 5 ways",
        ),
        ({"published__over": "tasks"}, "there is no interval"),
        ({"data": "imagenet"}, "data = 'imagenet'"),
        ({"test__querys": 3}, "did you mean `queries`"),
        ({"published__accuracy": 0.98765e3}, "published.accuracy"),
    ],
)
def test_a_wrong_recipe_is_named_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = changed(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(str(file))
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_an_unknown_recipe_is_told_with_those_that_are_like_it() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*prototypical/mini-5way-1shot"):
        read_recipe("prototypical/mini-5way-1shots")
    with pytest.raises(ConfigError, match="see all of them with --list"):
        read_recipe("zzz")
