"""A tiny network for all tests of autometa."""

from __future__ import annotations

import pytest
import torch

from autometa.backbones import CATALOGUE, BackboneSpec, build

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
