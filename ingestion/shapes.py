"""Images that are not square: how they become so, and when that matters."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
from PIL import Image

from ingestion.preparation import Shape

FAR_FROM_SQUARE = 1.25
"""Longer side over the shorter one, of most images, from which on it may matter how they become square."""


def make_square(image: Image.Image, side: int, shape: Shape) -> Image.Image:
    """An RGB image as a square of `side` pixels, resized with Pillow's bilinear filter. Padded images get bars in one
    colour, the median of the two edges beside them."""
    if image.width == image.height or shape == "squeeze":
        return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
    if shape == "crop":
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        box = (left, top, left + edge, top + edge)
        return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return _pad(image, side)


def elongation(sizes: Sequence[tuple[int, int]]) -> float:
    """Longer side over the shorter one of the median image; 1 where there is none. `sizes`: width and height."""
    return median(max(size) / min(size) for size in sizes) if sizes else 1.0


def _pad(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    width, height = (max(round(length * scale), 1) for length in image.size)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(whole)
    edges = pixels[[0, -1]] if width > height else pixels[:, [0, -1]]
    red, green, blue = np.median(edges.reshape(-1, 3), axis=0).astype(int).tolist()
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(whole, ((side - width) // 2, (side - height) // 2))
    return square
