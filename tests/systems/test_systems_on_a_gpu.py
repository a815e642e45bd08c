"""Whole systems on a GPU that is pretended: a search, a fixed recipe, several tuned backbones, a classifier of own
images. Each ends as on the CPU, and nothing was refused on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from autometa_cases import POOL, TEST, accuracy, controller
from pretend_gpu import Card
from synthetic import TickingClock, write_class_folders

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.classifier import FewShotClassifier
from autometa.classifier.options import FitOptions
from autometa.classifier.training import fit_folder
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.heads.modes import SIX_MODES
from autometa.model.load import load_learner
from autometa.systems import metadelta
from autometa.systems.fixed import FixedSystem
from autometa.systems.metadelta import MetaDeltaSystem

pytestmark = [pytest.mark.medium, pytest.mark.usefixtures("eager_only")]
ROOM = MemoryBudget(8 * 2**30)


def check(card: Card, folder: Path) -> None:
    """Networks ran on the card, and what was saved answers."""
    assert card.operations > 0
    assert accuracy(load_learner(folder)) > 0.8
    assert not card.refused


def test_a_search(gpu: Card, tiny_backbone: str, tmp_path: Path) -> None:
    lines: list[str] = []
    system = controller(tmp_path, tiny_backbone, 60.0, lines, max_trials=4)
    system.bootstrap()
    assert system.run(POOL).validation["stage"] == "final", lines
    check(gpu, tmp_path)


def test_a_fixed_recipe(gpu: Card, tiny_backbone: str, tmp_path: Path) -> None:
    lines: list[str] = []
    budget, view, further = TimeBudget.of(60.0), View(tiny_backbone, 32), (View(tiny_backbone, 48),)
    limits = Limits(budget, budget, ROOM)
    system = FixedSystem(TEST, limits, tmp_path, lines.append, 1.0, view, further=further, modes=SIX_MODES)
    system.bootstrap()
    system.run(POOL)
    check(gpu, tmp_path)


def test_several_tuned_backbones(
    gpu: Card, tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_efficientnet", 0.5, 64, "none"))
    monkeypatch.setattr(metadelta, "choose_engine", lambda *_: None)
    monkeypatch.setattr(metadelta, "EPISODES", 12)
    monkeypatch.setattr(metadelta, "CHOOSING_EPISODES", 20)
    lines: list[str] = []
    clock = TickingClock(0.05)
    limits = Limits(TimeBudget.of(60.0, clock), TimeBudget.of(600.0, clock), ROOM)
    views = View(tiny_backbone, 32), View("tiny2", 32)
    system = MetaDeltaSystem(TEST, limits, tmp_path, lines.append, 1.0, views)
    system.bootstrap()
    assert system.run(POOL).validation["stage"] == "final", lines
    check(gpu, tmp_path)


def test_a_classifier_of_own_images(gpu: Card, tiny_backbone: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_class_folders(images, POOL)
    options = FitOptions(output=tmp_path / "model", backbones=tiny_backbone, image_size=32, time_budget=20)
    fit_folder(images, options, lambda _: None)
    classifier = FewShotClassifier.load(tmp_path / "model")
    files = sorted(map(str, images.rglob("*.png")))
    right = [
        Path(file).parent.name == name for file, name in zip(files, classifier.predict(files), strict=True)
    ]
    assert np.mean(right) > 0.8
    assert gpu.operations > 0 and not gpu.refused
