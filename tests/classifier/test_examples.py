"""The examples with classifiers: each is run, on synthetic images and a tiny network; one on the demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import class_image, example_module

from autometa.heads import HEADS

ROOT = Path(__file__).parents[2]
CLASSES, IMAGES = 8, 9
SHOTS = 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a subfolder of striped images for each class."""
    for label in range(CLASSES):
        folder = tmp_path / "data" / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            class_image(label, number).save(folder / f"{label}-{number}.png")
    return tmp_path / "data"


def test_a_few_shot_classifier(data: Path, network: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = example_module("few_shot_classifier")
    accuracy = example.main(["--data", str(data), "--shots", str(SHOTS), "--preset", network])
    shown = capsys.readouterr().out
    assert accuracy > 0.8
    assert f"{accuracy:.0%} of {example.CLASSES * (IMAGES - SHOTS)} new images right" in shown
    assert "Seen by one@64" in shown and "accuracy" in shown


def test_classes_are_added(data: Path, network: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = example_module("add_classes").main(["--data", str(data), "--preset", network])
    assert before != "class 2"
    assert after == "class 2"
    assert "class 2 " in capsys.readouterr().out.splitlines()[-1]


def test_unknown_images_are_rejected_more_often_than_known_ones(data: Path, network: str) -> None:
    known, unknown = example_module("none_of_these").main(["--data", str(data), "--preset", network])
    assert known < unknown


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_an_own_head_answers(data: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "nearest_image", HEADS["centroid"])  # so that the row goes again
    arguments = ["--data", str(data), "--episodes", "4", "--backbone", tiny_backbone, "--size", "32"]
    found = example_module("own_head").main(arguments)
    assert HEADS["nearest_image"] is not HEADS["centroid"]
    assert {name: len(each) for name, each in found.items()} == {"nearest_image": 4, "centroid": 4}
    assert all(each.mean() > 0.5 for each in found.values())


@pytest.mark.medium
def test_the_demo_is_told_apart_from_three_icons_of_each_class() -> None:
    command = [sys.executable, "examples/few_shot_classifier.py", "--preset", "tf_efficientnet_lite0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    right = next(line for line in done.stdout.splitlines() if "new images right" in line)
    assert int(right.partition("%")[0]) > 60, done.stdout


def test_every_example_has_a_test() -> None:
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for example in (ROOT / "examples").iterdir():
        if example.suffix in (".py", ".ipynb"):
            name = example.name if example.suffix == ".ipynb" else example.stem
            assert f'example_module("{name}")' in tests or f"examples/{example.name}" in tests, example
