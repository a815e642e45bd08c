"""What labels a classifier takes, and what it says of others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import picture, pictures

from autometa.classifier import FewShotClassifier


@pytest.mark.parametrize(("labels", "message"), [
    (None, "y = None: give the class of each image"),
    (["a", None], "label 1 is None"),
    (np.array(["a", 1], object), r"labels of several kinds \(int, str\)"),
    ([0.5, 1.5], "Unknown label type"),
])  # fmt: skip
def test_what_is_no_label_is_told(network: str, labels: Any, message: str) -> None:
    images = np.stack([picture("red", 0), picture("blue", 0)])
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(preset=network).fit(images, labels)


def test_an_export_without_its_package_leaves_no_folder(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = FewShotClassifier(preset=network).fit(*pictures(1))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package onnx, which is not installed: pip install onnx"):
        classifier.export(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_threshold_is_heeded_after_fit(network: str) -> None:
    images, labels = pictures(3, colours=("blue", "red"))
    late = FewShotClassifier(preset=network).fit(images, labels).set_params(reject_below=0.5)
    early = FewShotClassifier(preset=network, reject_below=0.5).fit(images, labels)
    queries, _ = pictures(3, start=10)
    np.testing.assert_array_equal(late.predict(queries), early.predict(queries))
    np.testing.assert_allclose(late.known_probability(queries), early.known_probability(queries))
