"""Tiny networks and synthetic pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autometa.backbones import CATALOGUE, BackboneSpec, build
from autometa.episodes import ImagePool

TINY = "tiny"


@pytest.fixture
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalogue row whose network is tiny and has (seeded) random weights."""
    spec = BackboneSpec(TINY, "test_resnet", 0.5, 64, "none")
    monkeypatch.setitem(CATALOGUE, TINY, spec)

    def seeded(_: object, model: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.1, generator=generator)

    monkeypatch.setattr(build, "load_pretrained", seeded)
    return TINY


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
