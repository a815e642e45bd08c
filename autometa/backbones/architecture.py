"""The networks of the catalogue, untrained."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from autometa.backbones.catalogue import BackboneSpec


def create_model(spec: BackboneSpec) -> nn.Module:
    """The network of a row, without classifier, untrained."""
    options: dict[str, Any] = {"dynamic_img_size": True} if spec.patch_px > 1 else {}
    model: nn.Module = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, **options)
    if spec.depth is not None:
        model.blocks = model.blocks[: spec.depth]  # type: ignore[index]
    return model
