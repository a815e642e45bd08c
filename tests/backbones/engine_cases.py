"""What the tests of engines share: tiny networks and images."""

from __future__ import annotations

import numpy as np
import torch

from autometa.backbones import Backbone, BackboneSpec, build

PX = 48
ARCHITECTURES = ("test_efficientnet", "test_resnet", "test_vit")
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (19, 3, PX, PX), dtype=np.uint8))


def tiny(architecture: str, px: int = PX) -> Backbone:
    patch = 16 if "vit" in architecture else 1
    spec = BackboneSpec(architecture, architecture, 0.5, px, "none", patch_px=patch)
    torch.manual_seed(0)
    return Backbone(spec, build.create_model(spec), "cpu")
