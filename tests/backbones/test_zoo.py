"""Every row of the catalogue, with random weights: it builds, embeds at two sizes, and runs on the engines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autometa.backbones import CATALOGUE, Backbone, build
from autometa.backbones.engines import ENGINES

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 96, 96), dtype=np.uint8))
KINDS = (
    "mobilenetv4_conv_small.e2400_r224_in1k",
    "efficientvit_b0.r224_in1k",
    "fastvit_t8.apple_dist_in1k",
    "tiny_vit_5m_224.dist_in22k",
    "convnext_atto.d2_in1k",
    "vit_tiny_patch16_224.augreg_in21k",
    "eva02_tiny_patch14_224.mim_in22k",
    "resnet18.a1_in1k",
)
"""A small one of each kind."""


def random_backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    spec = CATALOGUE[name]
    return Backbone(spec, build.create_model(spec), "cpu")


@pytest.mark.medium
@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_row_embeds_at_two_sizes(name: str) -> None:
    backbone = random_backbone(name)
    seen = []
    for px in (96, 160):
        output = backbone.embed_layers(IMAGES[:2], px)
        assert output.shape == (2, sum(backbone.widths.values())) and torch.isfinite(output).all()
        seen.append(output)
    assert not torch.equal(seen[0], seen[1]), "the size counts"
    assert not torch.equal(seen[0][0], seen[0][1]), "the image counts"
    parameters = sum(p.numel() for p in backbone.model.parameters()) / 1e6
    assert parameters == pytest.approx(CATALOGUE[name].parameters_m, rel=0.02, abs=0.06)


@pytest.mark.medium
@pytest.mark.parametrize("name", KINDS)
def test_engines_agree_on_every_kind(name: str) -> None:
    """An engine that is refused says why; the others give what eager gives."""
    backbone = random_backbone(name)
    agreed = []
    for engine, spec in ENGINES.items():
        if not spec.installed or "cpu" not in spec.devices or engine in ("eager", "compiled"):
            continue
        backbone.prefer(engine, 96)
        backbone.engines._choices.clear()
        backbone.prepare(IMAGES, 96, n_images=1000)
        choice = backbone.choice(96)
        assert choice is not None
        assert choice.name == engine or choice.notes[engine], choice
        agreed.append(choice.name == engine)
    assert not agreed or any(agreed), "one of the engines serves this kind"
