"""The page where images are dropped: what it answers. `tests/cli/test_cli_playground.py` opens it in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from synthetic import class_image

from autometa.classifier import playground
from autometa.classifier.playground import Answers
from autometa.core.errors import ConfigError, DataError


class ByColour:
    """Classes by their mean colour: quick, and right for images of `class_image`."""

    def __init__(self) -> None:
        self.fitted = 0
        self.classes_: NDArray[Any] = np.empty(0, str)

    def fit(self, X: list[str], y: list[str]) -> ByColour:
        self.fitted += 1
        self.classes_ = np.unique(y)
        colours = np.stack([mean_colour(file) for file in X])
        self.means = np.stack([colours[np.array(y) == name].mean(0) for name in self.classes_])
        return self

    def predict_proba(self, X: list[str]) -> NDArray[Any]:
        distances = np.stack([np.linalg.norm(self.means - mean_colour(file), axis=1) for file in X])
        weights = np.exp(-distances / 10)
        return np.asarray(weights / weights.sum(1, keepdims=True))


def mean_colour(file: str) -> NDArray[Any]:
    with Image.open(file) as image:
        return np.asarray(np.asarray(image.convert("RGB"), float).mean((0, 1)))


@pytest.fixture
def files(tmp_path: Path) -> list[list[str]]:
    """Three images of each of three classes."""
    found = []
    for label in range(3):
        found.append([str(tmp_path / f"{label}-{number}.png") for number in range(3)])
        for number, file in enumerate(found[-1]):
            class_image(label, number).save(file)
    return found


def test_the_probabilities_are_those_of_the_classes_with_images(files: list[list[str]]) -> None:
    answers = Answers(ByColour())
    found = answers.of(files[2][0], ["cup", "", " "], [files[0], [], files[2][1:]])
    assert found is not None
    assert found.keys() == {"cup", "class 3"}
    assert sum(found.values()) == pytest.approx(1)
    assert found["class 3"] > 0.9


def test_nothing_is_answered_without_a_query_or_a_second_class(files: list[list[str]]) -> None:
    answers = Answers(ByColour())
    assert answers.of(None, ["a", "b"], files[:2]) is None
    assert answers.of(files[0][0], ["a", "b"], [files[0], []]) is None


def test_two_classes_of_one_name_are_refused(files: list[list[str]]) -> None:
    with pytest.raises(DataError, match="two classes are called `a`"):
        Answers(ByColour()).of(files[0][0], ["a", "a "], files[:2])


def test_classes_are_learned_again_only_when_they_change(files: list[list[str]]) -> None:
    classifier = ByColour()
    answers = Answers(classifier)
    for query in (files[0][2], files[1][2]):
        answers.of(query, ["a", "b"], files[:2])
    assert classifier.fitted == 1
    answers.of(files[0][2], ["a", "c"], files[:2])
    assert classifier.fitted == 2


def test_a_failure_to_learn_is_not_remembered_as_learned(files: list[list[str]]) -> None:
    class FailsOnce(ByColour):
        def fit(self, X: list[str], y: list[str]) -> ByColour:
            super().fit(X, y)
            if self.fitted == 1:
                raise DataError("not an image")
            return self

    answers = Answers(FailsOnce())
    with pytest.raises(DataError, match="not an image"):
        answers.of(files[0][0], ["a", "b"], files[:2])
    assert answers.of(files[0][0], ["a", "b"], files[:2]) is not None


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(playground.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'autometa\[playground\]'"):
        playground.import_gradio()
