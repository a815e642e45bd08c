"""What `import autometa` offers, and the examples that use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import class_image

import autometa
from autometa.backbones.shelf import BackboneShelf
from autometa.evaluation.member import Member

ROOT = Path(__file__).parents[1]


def test_the_public_names_are_these() -> None:
    assert autometa.__all__ == [
        "AutometaError",
        "FewShotClassifier",
        "FittedLearner",
        "FittedPredictor",
        "Settings",
        "__version__",
        "load_learner",
    ]
    assert all(getattr(autometa, name) is not None for name in autometa.__all__)


@pytest.mark.medium
def test_importing_autometa_is_light() -> None:
    code = "import sys, autometa, autometa.core.settings, run_local; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.medium
def test_the_example_classifies_images(tmp_path: Path) -> None:
    params = {"transform": "l2", "metric": "cosine"}
    member = Member(backbone="tf_efficientnet_lite0", px=64, head="centroid", params=params, temperature=0.05)
    (tmp_path / "model").mkdir()
    autometa.FittedLearner((member,), BackboneShelf("cpu")).save(tmp_path / "model")
    for label, name in enumerate(("first", "second")):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        for number in range(3):
            class_image(label, number, 64).save(tmp_path / "labelled" / name / f"{number}.png")
    class_image(1, 9, 64).save(tmp_path / "new.png")
    command: list[str | Path] = [
        sys.executable,
        "examples/classify.py",
        tmp_path / "model",
        tmp_path / "labelled",
        tmp_path / "new.png",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "new.png: second" in done.stdout
