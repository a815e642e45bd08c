"""Make the table of backbones whose weights come from the Hugging Face hub, `autometa/backbones/zoo.json`.

    python scripts/list_backbones.py [--out FILE]

Names, groups and what each was trained on are written here; all else is read from timm or counted: parameters without
the classifier, multiply-adds for one image at the size of pretraining, sizes that the architecture takes, licence.
Nothing is downloaded. `scripts/count_costs.py` then counts what its cost is predicted from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

OUT = Path(__file__).resolve().parents[1] / "autometa" / "backbones" / "zoo.json"
PERMISSIVE = {"apache-2.0", "mit", "bsd-3-clause"}
"""Licences with which a backbone may be used without being named."""
ROWS = {
    "mobilenetv4_conv_small.e2400_r224_in1k": "ImageNet-1k",
    "mobilenetv4_conv_medium.e250_r384_in12k": "ImageNet-12k",
    "mobilenetv4_hybrid_medium.e200_r256_in12k": "ImageNet-12k",
    "mobilenetv3_large_100.miil_in21k": "ImageNet-21k",
    "regnety_004.pycls_in1k": "ImageNet-1k",
    "resnet18.a1_in1k": "ImageNet-1k",
    "resnet50.a1_in1k": "ImageNet-1k",
    "efficientvit_b0.r224_in1k": "ImageNet-1k",
    "efficientvit_b1.r224_in1k": "ImageNet-1k",
    "efficientvit_b2.r224_in1k": "ImageNet-1k",
    "fastvit_t8.apple_dist_in1k": "ImageNet-1k, distilled",
    "fastvit_sa12.apple_dist_in1k": "ImageNet-1k, distilled",
    "tiny_vit_5m_224.dist_in22k": "ImageNet-22k, distilled",
    "tiny_vit_11m_224.dist_in22k": "ImageNet-22k, distilled",
    "tiny_vit_21m_224.dist_in22k": "ImageNet-22k, distilled",
    "convnext_atto.d2_in1k": "ImageNet-1k",
    "convnext_nano.in12k": "ImageNet-12k",
    "convnext_tiny.in12k": "ImageNet-12k",
    "convnext_small.in12k": "ImageNet-12k",
    "convnext_base.clip_laion2b_augreg_ft_in12k": "LAION-2B texts, then ImageNet-12k",
    "vit_tiny_patch16_224.augreg_in21k": "ImageNet-21k",
    "vit_small_patch16_224.augreg_in21k": "ImageNet-21k",
    "vit_small_patch16_224.dino": "ImageNet-1k, self-supervised (DINO)",
    "vit_base_patch16_224.dino": "ImageNet-1k, self-supervised (DINO)",
    "vit_small_patch14_reg4_dinov2.lvd142m": "LVD-142M, self-supervised (DINOv2)",
    "vit_base_patch14_reg4_dinov2.lvd142m": "LVD-142M, self-supervised (DINOv2)",
    "vit_small_patch16_dinov3.lvd1689m": "LVD-1689M, self-supervised (DINOv3)",
    "eva02_tiny_patch14_224.mim_in22k": "ImageNet-22k, masked images",
    "eva02_small_patch14_224.mim_in22k": "ImageNet-22k, masked images",
    "vit_base_patch32_clip_224.laion2b": "LAION-2B texts (CLIP)",
    "vit_base_patch16_clip_quickgelu_224.openai": "WIT-400M texts (CLIP)",
    "vit_base_patch16_siglip_224.v2_webli": "WebLI texts (SigLIP 2)",
}
LARGEST_NATIVE_PX = 224
"""DINOv2 was trained at 518 px; here networks work at this size and below."""


def describe(name: str, pretraining: str) -> dict[str, Any]:
    """The row of one backbone."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None and config.hf_hub_id, f"{name}: timm has no weights of that name"
    patch = int(name.split("patch")[1].split("_", maxsplit=1)[0]) if "patch" in name else 1
    options: dict[str, Any] = {"dynamic_img_size": True} if patch > 1 else {}
    with torch.device("meta"):
        model = (
            timm.create_model(name, pretrained=False, num_classes=0, **options).eval().requires_grad_(False)
        )
        native = int(config.input_size[-1])
        px = min(native, LARGEST_NATIVE_PX // patch * patch)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(torch.zeros(1, 3, px, px))
    return {
        "name": name,
        "parameters_m": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "mega_macs": round(counter.get_total_flops() / 2e6),
        "native_px": px,
        "patch_px": patch,
        "pretraining": pretraining,
        "licence": config.license or "see the model's page",
        "by_default": config.license in PERMISSIVE,
        "hub_id": config.hf_hub_id,
        "url_file": (config.url or "").rsplit("/", 1)[-1] or None,
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    out: Path = asked.out
    rows = [describe(name, pretraining) for name, pretraining in ROWS.items()]
    rows.sort(key=lambda row: row["mega_macs"])
    text = ",\n".join(json.dumps(row) for row in rows)
    out.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    print(f"{len(rows)} rows in {out}")


if __name__ == "__main__":
    main()
