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


def is_image(value: object) -> bool:
    """Whether a value is an image of Pillow."""
    return isinstance(value, Image.Image)
