"""From a file to the pixels that a learner sees, and what to look at before: how deep, how transparent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingestion.formats import UNUSABLE, load_image, open_image
from ingestion.image_cache import Pixels
from ingestion.preparation import WHITE, Preparation, Shape

MOST_SAMPLED = 4096
"""Pixels of an image that are looked at."""
LEAST_CLEAR = 0.01
"""Share of the pixels that are transparent where the ground is seen at all."""
DEEP_VALUES = 2**16
LEAST_SPREAD = 16
"""From the darkest to the brightest value of a channel, of 255, where an image shows anything."""

Values = NDArray[np.float64]


def decode_image(data: bytes, px: int | Preparation) -> Pixels:
    """One encoded image → uint8 [3, px, px], RGB; upright as its EXIF data say, the whole image resized to a square
    with Pillow's bilinear filter (what the original loader does), unless the preparation names another shape. Deep
    greys are scaled to 8 bits and transparent parts get a ground as the preparation says; by default, 16 bits are
    scaled and the ground is white. Whoever gives images to a learner decodes them here, so that it sees what it was
    trained on.

    Raises OSError, ValueError or Image.DecompressionBombError if the data is not a usable image.
    """
    preparation = Preparation.of(px)
    rgb = _make_square(
        _to_rgb(load_image(data, preparation.px), preparation), preparation.px, preparation.shape
    )
    return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1))


def _make_square(image: Image.Image, side: int, shape: Shape) -> Image.Image:
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


def is_flat(image: Pixels) -> bool:
    """Whether all pixels [3, px, px] have nearly one colour."""
    channels = image.reshape(3, -1)
    return int((channels.max(1) - channels.min(1)).max()) < LEAST_SPREAD


@dataclass(frozen=True)
class Look:
    """Some pixels of an image. `greys`: the finite values of a deep grey image. `drawn`: brightness, 0 to 255, of
    what is seen of an image with transparent parts. None: it is no such image."""

    greys: Values | None = None
    drawn: Values | None = None
    whole_numbers: bool = True


def is_special(file: Path) -> bool:
    """Whether the header of a file tells of deep greys or transparent parts. One that cannot be read does not."""
    try:
        with file.open("rb") as stream, open_image(stream) as image:
            return _is_deep(image) or _is_transparent(image)
    except UNUSABLE:
        return False


def look_at(file: Path) -> Look:
    """What to know of such an image before it is prepared; of one that cannot be read, nothing."""
    try:
        return _look_at_pixels(load_image(file.read_bytes(), 1))
    except UNUSABLE:
        return Look()


def _look_at_pixels(image: Image.Image) -> Look:
    if _is_deep(image):
        values = np.asarray(image).ravel()
        values = _numbers(values[:: len(values) // MOST_SAMPLED + 1])
        values = values[np.isfinite(values) & (values != image.info.get("transparency", np.nan))]
        return Look(greys=values if len(values) else None, whole_numbers=image.mode != "F")
    grey_alpha = np.asarray(image.convert("RGBA").convert("LA")).reshape(-1, 2)
    grey_alpha = grey_alpha[:: len(grey_alpha) // MOST_SAMPLED + 1]
    seen = grey_alpha[:, 1] > WHITE // 2
    if (~seen).mean() < LEAST_CLEAR or not seen.any():
        return Look()
    return Look(drawn=grey_alpha[seen, 0].astype(np.float64))


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("F", "I") or image.mode.startswith(("I;", "F;"))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _to_rgb(image: Image.Image, preparation: Preparation) -> Image.Image:
    if _is_deep(image):  # Pillow would clip instead of scale
        return Image.fromarray(_scale_grey(image, preparation)).convert("RGB")
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (*[preparation.ground] * 3, WHITE))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_grey(image: Image.Image, preparation: Preparation) -> NDArray[np.uint8]:
    """Deep grey pixels → uint8 [h, w]; where one grey means transparent, it becomes the ground."""
    deep = np.asarray(image)
    if preparation.grey_low is not None and preparation.grey_high is not None:
        grey: NDArray[Any] = _scale_range(deep, preparation.grey_low, preparation.grey_high)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range; save it with 8 or 16 bits")
    else:
        grey = _scale_sixteen_bits(deep.astype(np.int64))
    clear = deep == image.info.get("transparency", np.nan)
    return np.where(clear, preparation.ground, grey).astype(np.uint8)


def _scale_range(deep: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Low becomes 0 and high 255; what is no number becomes 0."""
    finite = np.nan_to_num(_numbers(deep), nan=low, posinf=high, neginf=low)
    scaled: NDArray[np.float64] = np.rint((finite.clip(low, high) - low) * (WHITE / (high - low)))
    return scaled


def _numbers(values: NDArray[Any]) -> Values:
    with np.errstate(invalid="ignore"):  # what is no number stays none
        return values.astype(np.float64)


def _scale_sixteen_bits(deep: NDArray[np.int64]) -> NDArray[np.int64]:
    if deep.min() < 0 or deep.max() >= DEEP_VALUES:
        raise ValueError(
            f"its pixels lie in {deep.min()} to {deep.max()}, outside the 16 bits of a grey image; "
            "save it with 8 or 16 bits"
        )
    return deep >> 8
