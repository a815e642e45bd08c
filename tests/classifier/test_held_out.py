"""`autometa fit --class-split`: what is learned from, what is scored, and what is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from colours import COLOURS, pictures, write_folder

from autometa.classifier import FewShotClassifier
from autometa.classifier.held_out import TASKS, score_held_out, without_scoring
from autometa.classifier.options import FitOptions
from autometa.classifier.sources import open_preset
from autometa.classifier.training import fit_folder
from autometa.cli.main import cli
from autometa.core.budget import TimeBudget
from autometa.data.images import ImagePool
from ingestion.errors import InputError

FIVE = ("blue", "green", "red", "white", "black")
PARTS = {"meta-train": ["red", "blue"], "meta-valid": ["white", "green"], "meta-test": ["black"]}


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Five plain colours with four images each, divided by `split.json` beside them."""
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("autometa.cli.fit.process_age_s", lambda: 1.0)  # the program is that of all tests
    monkeypatch.setitem(COLOURS, "white", (225, 225, 225))
    monkeypatch.setitem(COLOURS, "black", (25, 25, 25))
    (tmp_path / "split.json").write_text(json.dumps(PARTS))
    return write_folder(tmp_path / "data", 4, FIVE)


def pool_of(count: int, *colours: str) -> ImagePool:
    images, names = pictures(count, colours=colours)
    labels = np.array([colours.index(name) for name in names])
    pixels = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return ImagePool(pixels, labels, np.zeros(len(colours), np.int64), ("colours",))


def test_plain_colours_are_told_apart_the_same_every_time(network: str) -> None:
    space, lines = open_preset(network).space, list[str]()
    pool = pool_of(3, "blue", "green", "red")
    found = [score_held_out(space, pool, 0, TimeBudget.of(60), lines.append) for _ in range(2)]
    assert found[0] == found[1] and found[0] is not None and not lines
    assert found[0]["normalised_accuracy"] > 0.9 and found[0]["tasks"] == TASKS and found[0]["classes"] == 3
    alike = ImagePool(
        pool.images, np.arange(9) % 3, pool.dataset_of_class, pool.datasets
    )  # labels mean nothing
    chance = score_held_out(space, alike, 0, TimeBudget.of(60), lines.append)
    assert chance is not None and chance["normalised_accuracy"] < 0.4


def test_what_cannot_be_scored_is_said(network: str) -> None:
    space, lines = open_preset(network).space, list[str]()
    assert score_held_out(space, pool_of(3, "blue", "red"), 0, TimeBudget.of(0), lines.append) is None
    assert score_held_out(space, pool_of(3, "blue"), 0, TimeBudget.of(60), lines.append) is None
    assert "no time was left" in lines[0] and "no episode can be drawn from 1 classes" in lines[1]


def test_a_tenth_of_the_time_is_for_scoring() -> None:
    budget = TimeBudget(deadline=130.0, clock=lambda: 30.0)
    assert without_scoring(budget).left_s() == 90.0


@pytest.mark.medium
def test_only_classes_of_meta_train_are_learned_from(network: str, data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options = FitOptions(
        output=tmp_path / "model",
        backbones=network,
        class_split=tmp_path / "split.json",
        image_shape="squeeze",
    )
    fitted = fit_folder(data, options, lines.append)
    assert fitted.figures["classes"] == 2 and fitted.figures["images"] == 8
    assert fitted.figures["validation"]["classes"] == 2
    assert fitted.figures["validation"]["normalised_accuracy"] > 0.9
    assert FewShotClassifier.load(tmp_path / "model").classes_.tolist() == ["blue", "red"]
    assert "1 class of meta-test left out: not used here" in lines
    unvalidated = {key: names for key, names in PARTS.items() if key != "meta-valid"}
    (tmp_path / "split.json").write_text(json.dumps(unvalidated))
    again = options.model_copy(update={"overwrite": True})
    assert "validation" not in fit_folder(data, again, lines.append).figures


@pytest.mark.medium
def test_the_command_tells_the_score(network: str, data: Path, tmp_path: Path) -> None:
    command = ["fit", data, "-o", tmp_path / "model", "--backbones", network, "--class-split"]
    given = CliRunner().invoke(cli, [*map(str, command), str(tmp_path / "split.json")])
    assert given.exit_code == 0, given.output
    assert re.search(r"on the 2 classes of meta-valid: \d+\.\d ± \d+\.\d % normalised accuracy \(100 tasks\)",
                     given.stdout)  # fmt: skip
    refused = CliRunner().invoke(cli, [*map(str, command), str(tmp_path / "nowhere.json"), "--overwrite"])
    assert refused.exit_code == 2 and "nowhere.json: there is no such file" in refused.stderr


def test_a_class_that_is_not_there_is_refused(network: str, data: Path, tmp_path: Path) -> None:
    (data / "red").rename(data / "Reds")
    options = FitOptions(output=tmp_path / "model", backbones=network, class_split=tmp_path / "split.json")
    with pytest.raises(InputError, match=r"data has no class `red`; nearest to `red` are `Reds`"):
        fit_folder(data, options, lambda line: None)
