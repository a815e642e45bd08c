"""A backbone ready to embed images: model, preprocessing, device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data.config import resolve_data_config
from torch import nn

from autometa.backbones.catalogue import BackboneSpec, find_spec
from autometa.backbones.weights import load_pretrained
from autometa.errors import WeightsError


@dataclass(frozen=True, order=True)
class View:
    """A way to look at images: a backbone at a resolution."""

    backbone: str
    px: int

    def __str__(self) -> str:
        return f"{self.backbone}@{self.px}"


class Backbone:
    """Embeds images with one pretrained network; the network serves every resolution."""

    def __init__(self, spec: BackboneSpec, model: nn.Module, device: str) -> None:
        self.spec = spec
        model = model.eval().requires_grad_(False).to(device)
        self.model = model.to(memory_format=torch.channels_last)
        self.device = device
        fixed = bool(getattr(model, "pretrained_cfg", {}).get("fixed_input_size")) and spec.patch_px == 1
        config = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
        self._fixed_px: int | None = int(config["input_size"][-1]) if fixed else None
        self._mean = torch.tensor(config["mean"], device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(config["std"], device=device).view(1, 3, 1, 1) * 255
        self._interpolation = config["interpolation"] if config["interpolation"] != "random" else "bilinear"

    @property
    def features(self) -> int:
        """Length of an embedding."""
        return int(self.model.num_features)  # type: ignore[arg-type]

    def input_px(self, px: int) -> int:
        """The resolution nearest to `px` that the architecture accepts."""
        if self._fixed_px is not None:
            return self._fixed_px
        patch = self.spec.patch_px
        return max(round(px / patch), 1) * patch

    @torch.inference_mode()
    def embed(self, images: NDArray[np.uint8] | torch.Tensor, px: int) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → embeddings float32 [n, features] on the CPU."""
        batch = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images)
        batch = batch.to(self.device).float()
        size = self.input_px(px)
        if batch.shape[-2:] != (size, size):
            batch = F.interpolate(batch, (size, size), mode=self._interpolation, antialias=True).clamp_(
                0, 255
            )
        batch = batch.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)
        return self.model(batch).float().cpu()  # type: ignore[no-any-return]


def build_backbone(name: str, device: str, state: dict[str, torch.Tensor] | None = None) -> Backbone:
    """The backbone called `name`, pretrained, or with the weights in `state` (of a saved learner).

    Raises WeightsError where timm does not know it or no weights can be had.
    """
    spec = find_spec(name)
    try:
        model = create_model(spec)
    except RuntimeError as error:
        raise WeightsError(f"timm knows no model `{spec.timm_name}`") from error
    if state is None:
        load_pretrained(spec, model)
    else:
        model.load_state_dict(state, strict=True)
    return Backbone(spec, model, device)


def create_model(spec: BackboneSpec) -> nn.Module:
    """The network of a row, without classifier, untrained."""
    options: dict[str, Any] = {"dynamic_img_size": True} if spec.patch_px > 1 else {}
    model: nn.Module = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, **options)
    if spec.depth is not None:
        model.blocks = model.blocks[: spec.depth]  # type: ignore[index]
    return model
