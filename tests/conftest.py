"""Synthetic datasets and bundles shared by the tests."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def class_image(label: int, number: int, px: int = 32) -> Image.Image:
    """A noisy image whose colour and stripe width tell its class."""
    rng = np.random.default_rng([label, number])
    colour = np.random.default_rng(label).integers(40, 216, 3)
    stripes = ((np.arange(px) // (1 + label % 5)) % 2)[None, :, None] * 40
    pixels = colour + stripes + rng.normal(0, 12, (px, px, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_meta_album(folder: Path, class_sizes: Sequence[int], px: int = 32) -> Path:
    """A dataset in Meta-Album layout with so many images per class."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for label, size in enumerate(class_sizes):
        for number in range(size):
            name = f"{folder.name}_{label:03}_{number:03}.png"
            class_image(label, number, px).save(folder / "images" / name)
            rows.append((name, f"class {label}", ""))
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("FILE_NAME", "CATEGORY", "SUPER_CATEGORY"), *rows])
    columns = {"image_column_name": "FILE_NAME", "category_column_name": "CATEGORY"}
    (folder / "info.json").write_text(json.dumps(columns))
    return folder


MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """`make_bundle(fit=…, predict=…, meta_fit=…, config=…)`: a bundle whose methods have these bodies.

    By default it answers with the truth that can be had from colour alone: the nearest class mean.
    """

    def make(
        *,
        meta_fit: str = "return MyLearner()",
        fit: str = "return MyPredictor(support_set)",
        predict: str = "return self.nearest(query_set)",
        top: str = "",
        config: dict[str, object] | None = None,
        name: str = "bundle",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        parts = {"TOP": top, "META_FIT": meta_fit, "FIT": fit, "PREDICT": predict}
        text = _MODEL
        for mark, body in parts.items():
            indent = "" if mark == "TOP" else " " * 8
            text = text.replace(f"{indent}<{mark}>", textwrap.indent(textwrap.dedent(body).strip(), indent))
        (folder / "model.py").write_text(text)
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


_MODEL = """
import os
import time
from pathlib import Path
import numpy as np
from api import Learner, MetaLearner, Predictor
<TOP>

class MyMetaLearner(MetaLearner):
    def meta_fit(self, meta_train_generator, meta_valid_generator):
        <META_FIT>

class MyLearner(Learner):
    def fit(self, support_set):
        <FIT>
    def save(self, path_to_save):
        (Path(path_to_save) / "saved.txt").write_text("learner")
    def load(self, path_to_load):
        assert (Path(path_to_load) / "saved.txt").read_text() == "learner"

class MyPredictor(Predictor):
    def __init__(self, support_set):
        images, labels, _, self.ways, _ = support_set
        colours = images.mean((2, 3)).numpy()
        self.means = np.stack([colours[labels.numpy() == c].mean(0) for c in range(self.ways)])
    def nearest(self, query_set):
        colours = query_set.mean((2, 3)).numpy()
        return -((colours[:, None] - self.means[None]) ** 2).sum(-1)
    def predict(self, query_set):
        <PREDICT>
"""
