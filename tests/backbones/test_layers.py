"""Layers that networks give beside the usual ones: tokens, intermediate blocks, generalised means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from engine_cases import IMAGES, PX, tiny
from synthetic import colour_pool

from autometa.backbones import CATALOGUE, LAYERS, STAGES, Backbone, BackboneSpec, View, build
from autometa.backbones.engines import ENGINES, TOLERANCE, disagreement
from autometa.backbones.network import pool_generalised
from autometa.backbones.shelf import BackboneShelf
from autometa.core.errors import ConfigError
from autometa.core.settings import FurtherLayer
from autometa.heads import Metric, find_metric
from autometa.heads.modes import collect_keys
from autometa.model.inputs import list_inputs
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode

OF_STAGES = ("last", "stage3", "stage4", "stage3_gem", "stage4_gem", "stage3_max", "stage4_max")
OF_TOKENS = (*OF_STAGES, "class", "patches", "two_thirds", "five_sixths")
DINOV3 = "vit_small_patch16_dinov3"
KINDS = {
    "test_efficientnet": OF_STAGES,
    "test_resnet": OF_STAGES,
    "test_convnext": OF_STAGES,
    "test_byobnet": OF_STAGES,
    "test_vit": OF_TOKENS,
    "test_vit2": tuple(layer for layer in OF_TOKENS if layer != "class"),
}
"""A tiny network of each kind, and its layers."""


def giving_all(architecture: str) -> Backbone:
    backbone = tiny(architecture)
    return Backbone(replace(backbone.spec, layers=LAYERS), backbone.model, "cpu")


def small_dinov3() -> Backbone:
    """DINOv3 with random weights and two of its blocks."""
    torch.manual_seed(0)
    spec = BackboneSpec("dinov3", DINOV3, 1.0, PX, "none", depth=2, patch_px=16, layers=LAYERS)
    return Backbone(spec, build.create_model(spec), "cpu")


@pytest.mark.parametrize(("architecture", "layers"), KINDS.items())
def test_every_kind_has_its_layers_at_two_sizes(architecture: str, layers: tuple[str, ...]) -> None:
    backbone = giving_all(architecture)
    assert tuple(backbone.widths) == layers
    seen = [backbone.embed_layers(IMAGES[:3], px) for px in (PX, 96)]
    for output in seen:
        assert output.shape == (3, sum(backbone.widths.values())) and torch.isfinite(output).all()
    for layer in layers:
        small, large = (backbone.pick(output, (layer,)) for output in seen)
        assert not torch.equal(small, large) and not torch.equal(small[0], small[1]), layer


@pytest.mark.medium
@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize(("engine", "px"), [("onnxruntime", PX), ("openvino", 96)])
def test_engines_agree_on_all_layers(engine: str, px: int, architecture: str) -> None:
    if not ENGINES[engine].installed:
        pytest.skip(f"{engine} is not installed")
    backbone = giving_all(architecture)
    images = backbone._resized(IMAGES[:5], px)
    reference = backbone.embed_layers(images, px)
    output = ENGINES[engine].build(backbone.network, px, "cpu")(images)
    assert disagreement(reference, output, list(backbone.widths.values())) < TOLERANCE


@pytest.mark.medium
def test_layers_of_tokens_are_those_of_the_model() -> None:
    """Also where the model itself averages over its patches, as timm's DINOv3 does."""
    backbone = small_dinov3()
    assert tuple(backbone.widths) == OF_TOKENS
    for px in (PX, 96):
        output = backbone.embed_layers(IMAGES[:2], px)
        pixels = backbone.network.normalise(backbone._resized(IMAGES[:2], px))
        with torch.inference_mode():
            tokens = backbone.model.forward_features(pixels)
            _, maps = backbone.model.forward_intermediates(pixels, indices=[0])
            largest = backbone.model.forward_intermediates(pixels, indices=[1])[1][0].amax((2, 3))
        expected = {
            "stage4_max": largest,
            "class": tokens[:, 0],
            "patches": tokens[:, 5:].mean(1),
            "last": tokens[:, 5:].mean(1),
        }
        for layer, rows in (expected | {"two_thirds": maps[0].mean((2, 3))}).items():
            torch.testing.assert_close(backbone.pick(output, (layer,)), rows, rtol=1e-4, atol=1e-5)
    layers = BackboneSpec("dinov3", DINOV3, 1.0, PX, "none").layers
    plain = Backbone(replace(backbone.spec, layers=layers), backbone.model, "cpu")
    assert tuple(plain.widths) == ("last", "stage3", "stage4"), "nothing more unless it is asked for"
    with pytest.raises(ConfigError, match="dinov3 gives no layer class"):
        plain.pick(plain.embed_layers(IMAGES[:2], PX), ("class",))


@pytest.mark.medium
def test_generalised_means_lie_between_mean_and_maximum() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).random((2, 3, 5, 5), dtype=np.float32))
    pooled = pool_generalised(maps)
    assert bool((pooled > maps.mean((2, 3))).all()) and bool((pooled < maps.amax((2, 3))).all())
    torch.testing.assert_close(pool_generalised(torch.full((1, 2, 3, 3), 0.5)), torch.full((1, 2), 0.5))
    assert bool((pool_generalised(-maps) == 0).all()), "negative activations count as zero"


def test_settings_know_all_further_layers() -> None:
    assert set(get_args(FurtherLayer)) == set(LAYERS) - set(STAGES)
    assert all(spec.layers == STAGES for spec in CATALOGUE.values())


@pytest.mark.medium
def test_layers_of_an_embedding_can_take_the_place_of_the_last() -> None:
    backbone = small_dinov3()
    spec = replace(backbone.spec, layers=("class", "stage4", "stage3", "two_stages"))
    shelf = BackboneShelf("cpu")
    shelf._built["dinov3"] = Backbone(spec, backbone.model, "cpu")
    assert tuple(shelf("dinov3").widths) == ("last", "stage3", "stage4", "class"), (
        "older learners use the last"
    )
    assert shelf.whole(View("dinov3", PX)) == View("dinov3", PX, ("class", "stage4", "stage3"))


def test_a_portfolio_keeps_its_layers(tiny_backbone: str, tmp_path: Path) -> None:
    shelf = BackboneShelf("cpu", layers=("stage4_gem", "class"))
    view = shelf.whole(View(tiny_backbone, 32))
    assert view.layers == (*STAGES, "stage4_gem") and View.of(str(view)) == view
    assert BackboneShelf("cpu").whole(View(tiny_backbone, 32)) == View(tiny_backbone, 32)
    inputs = [one for key in collect_keys(["unfitted"]) for one in list_inputs([view], key)]
    metrics = {one: Metric(find_metric(one[1])) for one in inputs}
    portfolio = Portfolio((view,), (WeightedMode(name="unfitted"),), shelf, metrics)
    portfolio.save(tmp_path)
    again, pool = Portfolio.load(tmp_path), colour_pool()
    rows = np.concatenate([pool.rows_of_class[c][:2] for c in range(3)])
    asked = pool.images[pool.rows_of_class[0][2:5]]
    ours, theirs = (
        one.fit(pool.images[rows], np.repeat(np.arange(3), 2), 3).predict(asked) for one in (portfolio, again)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert again.views == (view,) and again.shelf(tiny_backbone).widths.keys() == set(view.layers)


def test_a_plain_view_stands_for_the_usual_layers() -> None:
    """As in learners from before there were others."""
    plain = View("net", 64)
    assert list_inputs([plain], ("l2", False)) == [(replace(plain, layers=STAGES), "l2")]
    assert [one.layers for one, _ in list_inputs([plain], ("l2", True))] == [(layer,) for layer in STAGES]
    named = replace(plain, layers=(*STAGES, "class"))
    assert [one.layers for one, _ in list_inputs([named], ("l2", True))][-1] == ("class",)
