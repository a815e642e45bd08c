"""Images that are no files: of Pillow, in arrays. Each is encoded, so that all are prepared in one place."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""What a PNG file holds as it is."""


def encode_image(image: Image.Image) -> bytes:
    """A Pillow image as a file without loss: transparency, orientation and depth stay. OSError where Pillow cannot
    write its mode."""
    file = io.BytesIO()
    if image.mode in PNG_MODES:
        image.save(file, "PNG", compress_level=0, exif=image.getexif().tobytes())
    else:
        image.save(file, "TIFF", exif=image.getexif())
    return file.getvalue()


def encode_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels uint8 [h, w] (grey), [h, w, 3] (RGB) or [h, w, 4] (RGBA) as a file without loss."""
    return encode_image(Image.fromarray(np.ascontiguousarray(pixels)))


def encode_thumbnail(image: NDArray[np.uint8], px: int) -> bytes:
    """A decoded image uint8 [3, n, n] as a JPEG file of at most `px` pixels a side."""
    small = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if small.width > px:
        small = small.resize((px, px), Image.Resampling.BOX, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return file.getvalue()


def is_image(value: object) -> bool:
    """Whether a value is an image of Pillow."""
    return isinstance(value, Image.Image)
