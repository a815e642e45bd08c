"""The part of an encoder that is never trained, and may run on an engine as a whole backbone does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autometa.backbones import Backbone, split
from autometa.core.budget import TimeBudget

RACED_IMAGES = 64
"""Images that a race of engines gets, at most."""

Images = NDArray[np.uint8]


@dataclass
class FrozenPart:
    """A frozen network for images of `px`. `shape`: of what it gives for one image. `engine`: what was chosen for it,
    which a learner is saved with (None: it runs in PyTorch)."""

    backbone: Backbone
    px: int
    shape: tuple[int, ...]
    engine: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenPart:
        return self

    def choose_engine(
        self,
        images: Images,
        n_images: int,
        budget: TimeBudget,
        report: Callable[[str], None],
        device: torch.device,
    ) -> None:
        """Choose the fastest engine on a device by a race on some images uint8 [n, 3, h, w], which must pay over the
        `n_images` to come and end within the budget."""
        self.backbone = move_backbone(self.backbone, device)
        self.backbone.report = report
        self.backbone.prepare(images[:RACED_IMAGES], self.px, n_images=n_images, budget=budget)
        self.engine = self.backbone.engine_name(self.px)

    @property
    def build_s(self) -> float:
        """Seconds for building the engine in a process that has not."""
        choice = self.backbone.choice(self.px) if self.engine else None
        return choice.build_s if choice else 0.0

    def run(self, images: torch.Tensor, device: torch.device) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → what the network gives, float32 [n, *shape] on the CPU. It runs on the device,
        on the engine if one was chosen, which is built first where it is missing."""
        with torch.inference_mode(False):  # weights that are moved within it could never be trained
            self.backbone = move_backbone(self.backbone, device)
            if self.engine is not None and not self.backbone.is_ready(self.px):
                self.backbone.prefer(self.engine, self.px)
                self.backbone.prepare(images, self.px, n_images=len(images))
        return self.backbone.embed(images, self.px).unflatten(1, self.shape)


def freeze_backbone(backbone: Backbone, px: int) -> FrozenPart:
    """A whole backbone, which gives features [d]."""
    return FrozenPart(backbone, px, (backbone.features,))


def freeze_trunk(backbone: Backbone, trainable: int, px: int) -> FrozenPart:
    """All stages of a backbone but the last `trainable`, which give activations, such as maps [c, h, w]. To engines
    they are a backbone that embeds images, whose embeddings are these activations in one row. ConfigError if the
    backbone does not have so many stages."""
    px = backbone.input_px(px)
    trunk, _ = split(
        backbone.network.fit_to_size(px).model, trainable
    )  # engines cannot resample position embeddings
    network = nn.Sequential(*trunk, nn.Flatten())
    network.pretrained_cfg = backbone.model.pretrained_cfg  # preprocessing goes by it
    alone = Backbone(replace(backbone.spec, native_px=px), network, backbone.device)
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, px, px, dtype=torch.uint8, device=backbone.device)
        shape = trunk(alone.network.normalise(pixels)).shape[1:]
    return FrozenPart(alone, px, tuple(shape))


def move_backbone(backbone: Backbone, device: torch.device) -> Backbone:
    """The backbone, or, where it runs on another kind of device, one with the same network that runs there."""
    if backbone.device == device.type:
        return backbone
    moved = Backbone(backbone.spec, backbone.model, device.type)
    moved.report = backbone.report
    return moved
