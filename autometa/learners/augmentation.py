"""Augmentation of training images, in bulk on uint8 tensors."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from autometa.core.errors import ConfigError
from autometa.data.images import Rows


class Augmentation(BaseModel):
    """What is done to training images: `flip` mirrors half of them; `shift` moves each by up to this share of
    its side, the border repeated; `brightness` multiplies each by 1 ± up to so much; `turn` turns all images
    of a class by the same multiple of 90°, which makes four classes of one (Santoro et al. 2016)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: bool = False
    shift: float = Field(default=0.0, ge=0, le=0.5)
    brightness: float = Field(default=0.0, ge=0, le=1)
    turn: bool = False

    @property
    def active(self) -> bool:
        """Whether it does anything."""
        return self != NO_AUGMENTATION

    def __call__(self, images: torch.Tensor, groups: Rows, rng: np.random.Generator) -> torch.Tensor:
        """uint8 [n, 3, h, w] → the same shape; `groups` int64 [n] says which images are of one class of one
        episode. ConfigError for anything but images."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ConfigError(
                f"augmentation wants uint8 images, not {images.dtype} {tuple(images.shape)}: a frozen trunk "
                "has none; leave augmentation out or train the whole network"
            )
        n, side = len(images), images.shape[-1]
        if self.turn and images.shape[-2] != side:
            raise ConfigError(f"augmentation: turn wants square images, not {images.shape[-2]}x{side}")
        if self.turn or self.flip:
            images = images.clone()
        if self.turn:
            quarter = torch.from_numpy(rng.integers(4, size=int(groups.max()) + 1)[groups])
            for turns in (1, 2, 3):
                chosen = quarter == turns
                images[chosen] = images[chosen].rot90(turns, (2, 3))
        if self.flip:
            chosen = torch.from_numpy(rng.random(n) < 0.5)
            images[chosen] = images[chosen].flip(3)
        if self.shift:
            images = _shift(images, round(self.shift * side), rng)
        if self.brightness:
            factor = torch.from_numpy(rng.uniform(1 - self.brightness, 1 + self.brightness, n)).float()
            images = (images * factor[:, None, None, None]).round().clamp(0, 255).to(torch.uint8)
        return images


NO_AUGMENTATION = Augmentation()


def _shift(images: torch.Tensor, most: int, rng: np.random.Generator) -> torch.Tensor:
    n, _, height, width = images.shape
    offsets = torch.from_numpy(rng.integers(-most, most + 1, size=(n, 2)))
    rows = (torch.arange(height) + offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + offsets[:, 1:]).clamp(0, width - 1)
    image = torch.arange(n)[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
