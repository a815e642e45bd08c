"""Which datasets show the same pictures, as benchmarks tell it: by content, not by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_image_contents")


def pictures(seed: int, n: int = 12, side: int = 32) -> NDArray[np.uint8]:
    """Smooth random images [n, 3, side, side]."""
    cells = np.random.default_rng(seed).integers(0, 256, (n, 3, 8, 8), np.uint8)
    return np.kron(cells, np.ones((side // 8, side // 8), np.uint8)).astype(np.uint8)


def test_versions_in_other_sizes_and_order_are_one_dataset_whatever_their_names(contents: ModuleType) -> None:
    larger = np.roll(np.kron(pictures(0), np.ones((2, 2), np.uint8)).astype(np.uint8), 3, axis=0)
    sets = {"CARS": pictures(0), "BOATS": pictures(1), "CARS_2": pictures(2), "SHIPS": larger}
    groups = contents.group_versions({name: contents.fingerprints(images) for name, images in sets.items()})
    assert groups == {"CARS": "CARS", "BOATS": "BOATS", "CARS_2": "CARS_2", "SHIPS": "CARS"}


def test_files_of_one_picture_in_two_sizes_are_found(contents: ModuleType, tmp_path: Path) -> None:
    for name, images in {
        "A": pictures(0, side=96),
        "B": pictures(0, side=64),
        "C": pictures(1, side=64),
    }.items():
        (tmp_path / name / "images").mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / name / "images" / f"{number}.jpg")
        lines = ["FILE_NAME,CATEGORY", *(f"{number}.jpg,x" for number in range(len(images)))]
        (tmp_path / name / "labels.csv").write_text("\n".join(lines))
    a, b, c = (tmp_path / name for name in "ABC")
    assert contents.find_shared_image([a], [b]) is None
    assert contents.find_version([c, a], [b]) == (a, b)
    assert contents.find_version([a], [c]) is None


def test_images_without_detail_are_not_recognised(contents: ModuleType) -> None:
    plain = contents.fingerprints(np.full((5, 3, 16, 16), 200, np.uint8))
    assert plain.shape == (0, 112)
    assert not contents.is_version(plain, plain)
    assert contents.fingerprints(pictures(0)).shape == (12, 112)
