"""Class folders of many synthetic JPEGs of the size of photographs, written quickly: for benchmarks of decoding."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (640, 480)


def write_photos(folder: Path, classes: int, per_class: int) -> Path:
    """A folder with a subfolder of images for each class, told by colour.

    Each class has one picture. Its files differ by bytes after the end of the image, which decoders pass over, so
    that no two have the same content.
    """
    rng = np.random.default_rng(0)
    for label in range(classes):
        colour = rng.integers(40, 216, 3)
        noise = rng.normal(0, 20, (SIZE[1] // 8, SIZE[0] // 8, 3)).repeat(8, 0).repeat(8, 1)
        pixels = (colour + noise + rng.normal(0, 12, (SIZE[1], SIZE[0], 1))).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=85)
        kind = folder / f"class {label:04}"
        kind.mkdir(parents=True)
        for number in range(per_class):
            (kind / f"{number:05}.jpg").write_bytes(stream.getvalue() + f"{label} {number}".encode())
    return folder
