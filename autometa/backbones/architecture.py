"""The networks of the catalogue, untrained."""

from __future__ import annotations

import re
from typing import Any

import timm
from torch import nn

from autometa.backbones.catalogue import BackboneSpec
from autometa.core.chunks import is_out_of_memory
from autometa.core.errors import WeightsError


def create_model(spec: BackboneSpec) -> nn.Module:
    """The network of a row, without classifier, untrained. WeightsError where timm does not know it."""
    _refuse_places(spec.timm_name)
    options: dict[str, Any] = {"dynamic_img_size": True} if spec.patch_px > 1 else {}
    try:
        model: nn.Module = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, **options)
    except (RuntimeError, ValueError, OSError) as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"timm knows no model `{spec.timm_name}` ({error})") from error
    if spec.depth is not None:
        model.blocks = model.blocks[: spec.depth]  # type: ignore[index]
    return model


def _refuse_places(name: str) -> None:
    """WeightsError for a name with a source, as `hf-hub:timm/resnet18`: timm would look there, on the network too."""
    if ":" not in name and "/" not in name:
        return
    last = re.split("[:/]", name)[-1]
    model = last if timm.is_model(last) else "resnet18"
    raise WeightsError(
        f"`{name}` is a place, not the name of a model in timm; name the model alone, such as `{model}`; weights of "
        "your own go into a folder as NAME.safetensors, which --weights-dir names"
    )
