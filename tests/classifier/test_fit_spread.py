"""`autometa fit` where others embed the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colours import write_folder
from made_up_ray import MadeUpRay
from other_embedders import Others, Willing
from synthetic import colour_pool, write_class_folders

from autometa.classifier import FewShotClassifier
from autometa.classifier.options import FitOptions
from autometa.classifier.training import fit_folder
from autometa.core.errors import ConfigError
from autometa.executors.ray_cluster import Needs

POOL = colour_pool(classes=8, per_class=14, px=48)


class Machines(Others):
    """Others that are a cluster, whose one process trains nothing."""

    needs = Needs(2, 10**9)
    ray, show = MadeUpRay({"Alive": True, "Resources": {"CPU": 2.0, "memory": 2e9}}), print
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machines:
    """The cluster at every address; it is asked however soon it would be done here."""
    made = Machines()
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("autometa.backbones.embedders.join_cluster", lambda *_: made)
    monkeypatch.setattr("autometa.classifier.machines.SpreadFeatures", Willing)
    return made


@pytest.mark.medium
def test_a_fit_has_its_images_embedded_by_others(network: str, others: Machines, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", POOL)
    lines: list[str] = []
    options = FitOptions(
        output=tmp_path / "model", backbones=network, ray="10.0.0.1:1", image_size=48, time_budget=40
    )
    fit_folder(tmp_path / "data", options, lines.append)
    assert any(
        line.startswith("4 processes on the cluster embed images, and all but one train") for line in lines
    )
    assert others.parts and others.closed
    assert [len(images) for images in others.held] == [len(POOL.images)]
    answers = FewShotClassifier.load(tmp_path / "model").predict(np.moveaxis(POOL.images, 1, -1))
    truth = [f"class {label}" for label in POOL.labels]
    assert np.mean([answer == true for answer, true in zip(answers, truth, strict=True)]) > 0.6


@pytest.mark.medium
def test_few_classes_are_learned_from_here(network: str, others: Machines, tmp_path: Path) -> None:
    data, lines = write_folder(tmp_path / "data", 5), list[str]()
    fit_folder(data, FitOptions(output=tmp_path / "model", backbones=network, ray="auto"), lines.append)
    assert "3 classes are too few to search (from 6 on): all work is done here" in lines
    assert not others.parts and others.closed


def test_a_wrong_address_touches_no_earlier_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, *_: object) -> None:
        raise ConfigError(f"--ray {address}: no cluster can be used there")

    monkeypatch.setattr("autometa.backbones.embedders.join_cluster", refuse)
    model = tmp_path / "model"
    model.mkdir()
    (model / "learner.json").write_text("{}")
    options = FitOptions(output=model, overwrite=True, ray="127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"--ray 127\.0\.0\.1:1"):
        fit_folder(tmp_path, options, print)
    assert (model / "learner.json").exists()
