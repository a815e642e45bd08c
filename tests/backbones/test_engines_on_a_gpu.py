"""Engines for GPUs on one that is pretended: what they are given and give is where it should be."""

from __future__ import annotations

import pytest
import torch
from engine_cases import ARCHITECTURES, IMAGES, PX
from pretend_gpu import Card

from autometa.backbones import Backbone, BackboneSpec, build
from autometa.backbones.engines import ENGINES


def on(device: str, architecture: str) -> Backbone:
    spec = BackboneSpec(
        architecture, architecture, 0.5, PX, "none", patch_px=16 if "vit" in architecture else 1
    )
    torch.manual_seed(0)
    return Backbone(spec, build.create_model(spec), device)


@pytest.mark.parametrize("name", ["eager", "eager-float16", "eager-bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_engine_gives_what_the_cpu_gives(name: str, architecture: str, gpu: Card) -> None:
    assert "cuda" in ENGINES[name].devices
    expected = on("cpu", architecture).embed_layers(IMAGES, PX)
    assert gpu.operations == 0
    backbone = on("cuda", architecture)
    engine = ENGINES[name].build(backbone.network, PX, "cuda")
    for images in (IMAGES, IMAGES[:3], IMAGES.cuda()):
        found = engine(images)
        assert not found.is_cuda and found.dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(found, expected[: len(images)])
        assert cosine.min() > 0.999
    assert gpu.operations > 0 and not gpu.refused


def test_a_race_on_a_gpu_ends_with_an_engine(gpu: Card) -> None:
    backbone = on("cuda", "test_resnet")
    raced = {name: ENGINES[name] for name in ("eager", "graph-float16", "eager-float16")}
    backbone.prepare(IMAGES.numpy(), PX, n_images=10**8, engines=raced)
    choice = backbone.choice(PX)
    assert choice is not None and choice.name in {"eager", "eager-float16"}
    assert "captures no graphs" in choice.notes["graph-float16"]
    features = backbone.embed_layers(IMAGES, PX)
    assert not features.is_cuda and bool(features.isfinite().all())
    assert not gpu.refused
