"""What `autometa fit` says without being asked, and what it leaves behind where it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from colours import many_classes, picture, write_folder

from autometa.classifier import FewShotClassifier
from autometa.classifier.notes import Listener, Note
from autometa.classifier.options import FitOptions
from autometa.classifier.output_folder import claim_folder
from autometa.classifier.training import fit_folder
from autometa.cli.fit import _lines
from autometa.cli.main import cli
from autometa.core.errors import ConfigError
from autometa.systems.fixed import FixedSystem
from ingestion.loose_images import encode_pixels


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The budget counts from the start of the program, which is that of all tests; and an own cache."""
    monkeypatch.setattr("autometa.cli.fit.process_age_s", lambda: 1.0)
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def nested_folder(folder: Path) -> Path:
    """Two folders, each with folders of classes."""
    for group, colours in (("cold", ("blue", "green")), ("warm", ("red",))):
        write_folder(folder / group, 2, colours)
    return folder


@pytest.mark.medium
def test_what_cannot_be_used_is_named_without_being_asked(network: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 2)
    (data / "empty").mkdir()
    (data / "lost").mkdir()
    (data / "lost" / "a.png").write_text("no image")
    (data / "red" / "broken.png").write_text("none either")
    (data / "red" / "IMG_1.txt").write_text("no image")
    given = call("fit", data, "-o", tmp_path / "model", "--backbones", network)
    assert given.exit_code == 0, given.output
    for told in (
        "4 classes (blue, green, lost and 1 more), 8 images",
        "broken.png",
        "classes without an image: empty (empty)",
        "1 class without an image that can be used, left out: lost",
        "1 file passed over: 1 .txt (class red)",
        "expected on new classes: not known, as 3 classes and 6 images are too few to learn from",
    ):
        assert told in given.output, (told, given.output)
    assert "latency: " not in given.output, "which is for those who watch every line"


@pytest.mark.medium
def test_classes_of_subfolders_are_warned_of(network: str, tmp_path: Path) -> None:
    given = call("fit", nested_folder(tmp_path / "data"), "-o", tmp_path / "model", "--backbones", network)
    assert "2 classes (cold, warm), 6 images" in given.output
    assert "holds only subfolders, and no image itself" in given.output, given.output
    (tmp_path / "data" / "warm" / "1.png").write_bytes(encode_pixels(picture("red", 9)))
    again = call(
        "fit", tmp_path / "data", "-o", tmp_path / "model", "--backbones", network, "--overwrite", "--seed", 1
    )
    assert again.exit_code == 0 and "holds only subfolders" not in again.output, again.output


def test_without_an_output_the_option_is_named(tmp_path: Path) -> None:
    given = call("fit", write_folder(tmp_path / "data", 1))
    assert given.exit_code == 2 and "--output is missing: give -o FOLDER" in given.output
    (tmp_path / "options.yaml").write_text("seed: 1\n")  # the output may be on the command line alone
    given = call("fit", tmp_path / "none", "-o", tmp_path / "m", "--config", tmp_path / "options.yaml")
    assert given.exit_code == 2 and "none: does not exist" in given.output, given.output


def test_a_refused_fit_leaves_no_folder(network: str, tmp_path: Path) -> None:
    data, output = write_folder(tmp_path / "data", 1), tmp_path / "new" / "model"
    common = ("-o", output, "--backbones", network)
    for arguments, told in (
        ((tmp_path / "phtos", *common), "does not exist"),
        ((data, *common, "--class-split", tmp_path / "no.json"), "no.json"),
        ((data, *common, "--max-model-size", "1kB"), "--max-model-size 1000B"),
    ):
        given = call("fit", *arguments)
        assert given.exit_code == 2 and told in given.output, given.output
        assert not output.parent.exists()
    output.mkdir(parents=True)  # which was there before
    assert call("fit", tmp_path / "phtos", *common).exit_code == 2 and output.exists()


def test_a_model_inside_the_images_is_refused(network: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 1)
    given = call("fit", data, "-o", data / "model", "--backbones", network)
    assert given.exit_code == 2 and "lies inside the dataset" in given.output, given.output
    assert not (data / "model").exists()


def test_a_half_model_is_named_as_what_an_interrupt_leaves(tmp_path: Path) -> None:
    (tmp_path / "learner.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"it has no classifier\.json: of an interrupted fit, or of a run"):
        claim_folder(tmp_path, overwrite=False)
    (tmp_path / "new.png").write_bytes(encode_pixels(picture("red", 9)))
    given = call("classify", tmp_path, tmp_path / "new.png")
    assert given.exit_code == 2 and "if a fit was interrupted, fit again with --overwrite" in given.output
    (tmp_path / "classifier.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        claim_folder(tmp_path, overwrite=False)
    assert "interrupted" not in str(caught.value)


@pytest.mark.medium
def test_an_interrupt_is_answered_at_once(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FixedSystem, "run", interrupted)
    data = write_folder(tmp_path / "data", 5)
    given = call("fit", data, "-o", tmp_path / "model", "--backbones", network)
    assert given.exit_code == 0 and "interrupted: what was learned so far is saved" in given.output
    assert "expected on new classes: not known, as 3 classes are too few to hold any out" in given.output


@pytest.mark.medium
def test_examples_that_are_kept_as_pixels_keep_the_limit(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no portfolio is made, the learner takes the images themselves."""
    monkeypatch.setattr(
        "autometa.search.serving_gate.ServingGate.broken_with",
        lambda *_: "over --max-model-size (1 MB of 0.5MB)",
    )
    data, common = many_classes(tmp_path / "data"), ("--backbones", network, "--time-budget", "30s")
    whole = call("fit", data, "-o", tmp_path / "whole", *common, "--json")
    assert whole.exit_code == 0, whole.output
    largest = json.loads(whole.stdout)["serving"]["bytes"]
    pixels = 3 * 128**2
    assert largest > 60 * pixels, "all images as they are"
    assert "no portfolio is made" in whole.stderr
    limit = largest - 30 * pixels
    given = call("fit", data, "-o", tmp_path / "model", *common, "--json", "--max-model-size", f"{limit}B")
    record = json.loads(given.stdout)
    assert given.exit_code == 0 and record["serving"]["bytes"] <= limit and record["over_limits"] == []
    assert "4 examples of each class are remembered, not 10: --max-model-size" in given.stderr, given.stderr
    assert set(record["examples"].values()) == {4}
    assert "no portfolio is made" in record["not_measured"]


@pytest.mark.medium
def test_a_limit_that_the_model_breaks_is_told_loudly(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autometa.classifier.serving.folder_bytes", lambda folder: 3 * 10**9)
    data = write_folder(tmp_path / "data", 1)
    command = ("fit", data, "-o", tmp_path / "model", "--backbones", network, "--max-model-size", "1GB", "-q")
    given = call(*command)
    assert "warning: the model is over --max-model-size (3 GB of 1GB); raise the limit" in given.output
    as_json = call(*command, "--json", "--overwrite")
    assert json.loads(as_json.stdout)["over_limits"] and "warning: the model is over" in as_json.stderr


def test_serious_lines_of_a_search_are_notes() -> None:
    heard: list[str] = []
    listener = Listener(heard.append)
    for line in ("plan: a", "no portfolio is made, as b", "measured: c"):
        listener(line)
    assert [isinstance(line, Note) for line in heard] == [False, True, False]
    assert listener.why == heard[1]


def test_figures_are_told_in_units_that_people_read() -> None:
    latency: dict[str, Any] = {"px": 128, "support_images": 25}
    latency |= {"predict": {"p95_ms": 999.7}, "adapt": {"p95_ms": 1240.0}}
    serving = {"bytes": 5 * 10**6, "latency": latency}
    figures = {"serving": serving, "not_measured": "no time was left"}
    told = "\n".join(_lines(SimpleNamespace(figures=figures, folder="m")))  # type: ignore[arg-type]
    assert "one image of 128 px in 1 s, 25 examples learned in 1.24 s" in told and "e+0" not in told
    assert told.startswith("expected on new classes: not known, as no time was left")


@pytest.mark.medium
def test_a_fitted_model_says_none_of_these_too(network: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 4, ("red", "blue"))
    options = FitOptions(output=tmp_path / "model", backbones=network)
    fit_folder(data, options, lambda line: None)
    for colour in ("green", "red"):
        (tmp_path / f"{colour}.png").write_bytes(encode_pixels(picture(colour, 9)))
    loaded = FewShotClassifier.load(tmp_path / "model")
    files = [tmp_path / "green.png", tmp_path / "red.png"]
    assert set(loaded.predict(files)) <= {"red", "blue"}
    unknown, known = loaded.set_params(reject_below=0.5).known_probability(files)
    assert unknown < known
    threshold = float(np.mean([unknown, known]))
    loaded.set_params(reject_below=threshold)
    assert loaded.predict(files).tolist() == ["none of these", "red"]
    given = call("classify", tmp_path / "model", *files, "--reject-below", threshold)
    assert given.exit_code == 0, given.output
    assert "green.png: none of these (nearest: " in given.output and "red.png: red (" in given.output
    with pytest.raises(ValueError, match="reject_below = 7: a probability"):
        loaded.set_params(reject_below=7).predict(files)
