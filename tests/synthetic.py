"""Synthetic datasets, pools, bundles and clocks for the tests."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from autometa.data.images import ImagePool
from ingestion.loose_images import encode_pixels

MakeBundle = Callable[..., Path]


def example_module(name: str) -> ModuleType:
    """The script `examples/NAME.py` as a module."""
    return _script(f"examples/{name}.py", f"{name}_example")


def benchmark_module(name: str) -> ModuleType:
    """The script `benchmarks/NAME.py` as a module."""
    return _script(f"benchmarks/{name}.py", f"{name}_benchmark")


def _script(path: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


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


def colour_pool(classes: int = 12, per_class: int = 14, px: int = 32, datasets: int = 2) -> ImagePool:
    """Classes told by colour; every dataset has as many classes as the others."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    colours = rng.integers(30, 226, (classes, 3, 1, 1))
    images = colours[labels] + rng.normal(0, 25, (len(labels), 3, px, px))
    return ImagePool(
        images.clip(0, 255).astype(np.uint8),
        labels,
        np.arange(classes) * datasets // classes,
        tuple(f"D{i}" for i in range(datasets)),
    )


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TickingClock(FakeClock):
    """A clock that moves by `tick` seconds whenever it is read, so that work ends after as many steps on any
    machine."""

    def __init__(self, tick: float) -> None:
        super().__init__()
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


MODEL = """
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


def write_bundle(folder: Path, parts: Mapping[str, str], config: dict[str, object] | None = None) -> Path:
    """A new folder with `MODEL`, in which each mark (`TOP`, `META_FIT`, `FIT`, `PREDICT`) is replaced by its code."""
    folder.mkdir()
    text = MODEL
    for mark, body in parts.items():
        indent = "" if mark == "TOP" else " " * 8
        text = text.replace(f"{indent}<{mark}>", textwrap.indent(textwrap.dedent(body).strip(), indent))
    (folder / "model.py").write_text(text)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_class_folders(folder: Path, pool: ImagePool) -> None:
    """The images of a pool as a folder of own images: a subfolder for each class."""
    for place, (image, label) in enumerate(zip(pool.images, pool.labels, strict=True)):
        file = folder / f"class {label}" / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_pixels(np.moveaxis(image, 0, -1)))
