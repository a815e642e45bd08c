"""A reproduction trains, goes on after a kill, and measures plain accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autometa.core.errors import ConfigError, DataError
from autometa.data.images import ImagePool
from autometa.evaluation.validation_episodes import Answer
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes, PoolSource
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner
from autometa.learners.training_settings import TrainingSettings
from autometa.papers.paper_data import PaperData
from autometa.papers.recipes import Achieved, NamedRecipe, PaperRecipe, Published, TestTasks
from autometa.papers.reproduction import Reproduction, plain_accuracies
from autometa.papers.result import Result

CLASSES, IMAGES, PX = 15, 6, 8


class Killed(Exception):
    """What ends a program from outside."""


def coloured() -> PaperData:
    """Five classes a split, each of its own colour, from which that of an image differs at random."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), IMAGES)
    colours = rng.integers(40, 216, size=(CLASSES, 3, 1, 1))
    shades = colours[labels] + rng.integers(-35, 36, size=(len(labels), 3, 1, 1))
    images = shades.clip(0, 255).astype(np.uint8).repeat(PX, 2).repeat(PX, 3)
    pool = ImagePool(images, labels, np.zeros(CLASSES, np.int64), ("colours",))
    train, validation, test = np.split(np.arange(CLASSES), 3)
    return PaperData(pool, train, validation, test)


def paper(
    learner: str = "prototypical", options: dict[str, Any] | None = None, **training: Any
) -> NamedRecipe:
    settings: dict[str, Any] = {"max_steps": 12, "validate_every": 3, "learning_rate": 0.01, "meta_batch": 2}
    learning = Recipe(
        learner=learner,
        encoder=EncoderSpec(network="conv4", px=PX, channels=8, pools=2),
        options=options or {},
        training=TrainingSettings(**(settings | training)),
        ways=(4, 4),
        shots=(1, 1),
        queries_per_class=3,
        validation_episodes=8,
    )
    recipe = PaperRecipe(
        paper="Nobody 2000",
        title="Colours",
        source="none",
        table="Table 0",
        published=Published(accuracy=90, interval=1, over="tasks"),
        data="classes",
        test=TestTasks(ways=4, shots=1, queries=4, tasks=30),
        learning=learning,
    )
    return NamedRecipe("colours", recipe)


def run(folder: Path, named: NamedRecipe | None = None, **given: Any) -> Result:
    return Reproduction(named or paper(), **given).run(coloured(), folder, lambda line: None)


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return TrainedLearner.load(folder / "learner", "cpu").learner.state_dict()


@pytest.mark.medium
def test_a_result_has_the_published_figure_and_the_plain_accuracy(tmp_path: Path) -> None:
    result = run(tmp_path / "out")
    assert result.published.accuracy == 90 and not result.shortened
    assert (result.steps, result.tasks, result.classes, result.images) == (12, 30, (5, 5, 5), 90)
    assert 45 < result.achieved.accuracy < 100, "chance is 25 %, and colours are easy, but not all"
    assert 0 < result.achieved.interval < 10
    content = json.loads((tmp_path / "out" / "result.json").read_text())
    assert Result.model_validate(content) == result
    assert content["format"] == "autometa-reproduction-result-1"


SGD: dict[str, Any] = {
    "optimizer": "sgd", "momentum": 0.9, "schedule": "steps", "drops": (0.5,), "learning_rate": 0.05
}  # fmt: skip
MAML = {"head": "learned", "ways": 4, "steps": 1, "test_steps": 1}


@pytest.mark.medium
@pytest.mark.parametrize(
    "named",
    [paper(**SGD), paper("maml", MAML, schedule="constant"), paper("simpleshot", schedule="linear")],
    ids=["momentum", "maml", "simpleshot"],
)
def test_a_training_that_was_killed_ends_as_one_that_was_not(
    named: NamedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", named)
    draw, left = PoolSource.draw, [8]

    def draw_until_killed(source: PoolSource, n: int) -> InputEpisodes:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return draw(source, n)

    with monkeypatch.context() as patch:
        patch.setattr(PoolSource, "draw", draw_until_killed)
        with pytest.raises(Killed):
            run(tmp_path / "cut", named)
    torch.manual_seed(123)
    lines: list[str] = []
    resumed = Reproduction(named).run(coloured(), tmp_path / "cut", lines.append)
    assert any("goes on at step 6" in line for line in lines)
    assert resumed.model_dump(exclude={"training_s"}) == whole.model_dump(exclude={"training_s"})
    states = state_of(tmp_path / "whole"), state_of(tmp_path / "cut")
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.medium
def test_a_training_that_diverges_is_told_and_compared_with_nothing(tmp_path: Path) -> None:
    result = run(tmp_path / "out", paper(**SGD | {"learning_rate": 1e30, "clip": None}))
    assert result.shortened and result.steps < 12
    assert "the training ended early (the loss is no number" in result.tell()[-1]
    assert "points" not in "".join(result.tell())


@pytest.mark.medium
def test_a_training_that_has_ended_is_tested_again_on_more_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "out", tasks=10)
    assert first.shortened and "says nothing of the paper" in first.tell()[-1]
    monkeypatch.setattr(PoolSource, "draw", None)  # nothing is trained any more
    assert run(tmp_path / "out").tasks == 30
    assert run(tmp_path / "out", tasks=10).achieved == first.achieved


@pytest.mark.medium
def test_a_folder_holds_one_training(tmp_path: Path) -> None:
    run(tmp_path / "out", steps=1, tasks=2)
    with pytest.raises(ConfigError, match="holds a training with seed 0, not 1; give the same"):
        run(tmp_path / "out", steps=1, tasks=2, seed=1)
    with pytest.raises(ConfigError, match="with steps 1, not 2"):
        run(tmp_path / "out", steps=2, tasks=2)
    with pytest.raises(ConfigError, match="with content"):
        run(tmp_path / "out", paper(learning_rate=0.1), steps=1, tasks=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("")
    with pytest.raises(ConfigError, match="is not the output of a reproduction"):
        run(tmp_path / "mine")


def test_data_without_room_for_the_tasks_is_refused_before_training(tmp_path: Path) -> None:
    named = paper()
    larger = named.recipe.model_copy(update={"test": TestTasks(ways=4, shots=1, queries=6)})
    with pytest.raises(DataError, match="validation: 0 of its 5 classes have 7 images"):
        run(tmp_path / "out", NamedRecipe("colours", larger))


def test_plain_accuracy_is_the_share_of_right_answers() -> None:
    answer = Answer((), np.array([0.0, 1.0, 0.5]))
    assert plain_accuracies(answer, 5).tolist() == pytest.approx([0.2, 1.0, 0.6])


@pytest.mark.parametrize(
    ("achieved", "interval", "agrees"), [(88.0, 1.5, True), (88.0, 0.5, False), (93.0, 1.0, False)]
)
def test_intervals_meet_or_do_not(achieved: float, interval: float, agrees: bool) -> None:
    result = Result(
        recipe="x", paper="x", table="x", data="classes", images=1, classes=(1, 1, 1), seed=0, steps=1, tasks=2,
        shortened=False, published=Published(accuracy=90, interval=1), untrained=20, validation=50, ended="",
        achieved=Achieved(accuracy=achieved, interval=interval), training_s=1, device="cpu", version="0",
    )  # fmt: skip
    assert result.agrees == agrees
    assert ("do not meet" in result.tell()[-1]) != agrees
    assert f"{achieved - 90:+.2f} points" in result.tell()[-1]
