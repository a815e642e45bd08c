"""Folders of images that are deep, transparent, huge or damaged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from odd_folders import fill, put
from PIL import Image

Pixels = np.ndarray[Any, Any]


def deep(values: Pixels, kind: str = "TIFF") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def ramp(number: int, low: float, high: float, dtype: type) -> Pixels:
    """Values from low to high, from a row on that is the image's own."""
    return np.roll(np.linspace(low, high, 32 * 32).reshape(32, 32), number, axis=0).astype(dtype)


def fill_deep(root: Path, low: float, high: float, dtype: type, suffix: str = "tif") -> None:
    for label, name in enumerate("abcd"):
        for number in range(3):
            kind = {"tif": "TIFF", "png": "PNG"}[suffix]
            put(root / name, deep(ramp(9 * label + number, low, high, dtype), kind), f"{number}.{suffix}")


def drawing(number: int, grey: int) -> Image.Image:
    """A shape of one brightness on a transparent ground."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[4 + number : 20 + number, 8:24] = 255
    return Image.fromarray(np.dstack([*[np.full((32, 32), grey, np.uint8)] * 3, alpha]))


def fill_drawings(root: Path, *greys: int) -> None:
    for label, name in enumerate("abcd"):
        for number, grey in enumerate(greys):
            put(root / name, drawing(label + 4 * number, grey), f"{number}.png")


def floats(root: Path) -> None:
    fill_deep(root, 0, 1, np.float32)


def grey_of_32_bits(root: Path) -> None:
    fill_deep(root, 0, 100_000, np.int32)


def twelve_bits(root: Path) -> None:
    fill_deep(root, 0, 4095, np.uint16, "png")


def sixteen_bits(root: Path) -> None:
    fill_deep(root, 0, 65535, np.uint16, "png")


def white_drawings(root: Path) -> None:
    fill_drawings(root, 255, 240)


def black_drawings(root: Path) -> None:
    fill_drawings(root, 0, 60)


def drawings_of_both(root: Path) -> None:
    fill_drawings(root, 0, 255)


def one_flat(root: Path) -> None:
    fill(root, "ab", 2)
    put(root / "a", Image.new("RGB", (32, 32), "blue"), "blue.png")


def cut_short(root: Path) -> None:
    fill(root, "ab", 2, "jpg")
    data = (root / "a" / "0.jpg").read_bytes()
    (root / "a" / "0.jpg").write_bytes(data[: len(data) // 2])


def not_an_image(root: Path) -> None:
    fill(root, "ab", 2)
    put(root / "a", b"text", "text.png")


def fill_special(root: Path, special: Image.Image, suffix: str, **options: Any) -> None:
    """Two classes of ordinary images, and a special one."""
    fill(root, "ab", 2)
    put(root / "a", special, f"special.{suffix}", **options)


def noise(px: int) -> Image.Image:
    """An image of so many pixels a side, brighter on its right half."""
    pixels = np.random.default_rng(px).integers(0, 128, (px, px, 3), np.uint8)
    pixels[:, px // 2 :] += 128
    return Image.fromarray(pixels)


def one_flat_in_twelve_bits(root: Path) -> None:
    """Colours of twelve bits, of which Pillow keeps the upper four."""
    fill_special(root, Image.fromarray(np.asarray(noise(32)) // 16), "png")


def damaged_avif(root: Path) -> None:
    """The header of one, and nothing that can be decoded."""
    fill(root, "ab", 2)
    put(root / "a", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200), "broken.avif")


def huge_jpeg(root: Path) -> None:
    fill_special(root, noise(400), "jpg")


def huge_png(root: Path) -> None:
    fill_special(root, noise(400), "png")


def huge_progressive_jpeg(root: Path) -> None:
    fill_special(root, noise(400), "jpg", progressive=True)


def stuck_pixels(root: Path) -> None:
    fill_deep(root, 100, 1000, np.float32)
    values = ramp(99, 100, 1000, np.float32)
    values[0, :3] = np.nan, np.inf, 1e9
    put(root / "a", deep(values), "stuck.tif")


def one_float_among_photos(root: Path) -> None:
    fill(root, "abcd", 70, "jpg")
    put(root / "c", deep(ramp(1, 0, 1, np.float32)), "deep.tif")


def phone_photos(root: Path) -> None:
    fill(root, "ab", 2)
    try:
        fill(root, "ac", 2, "heic", first=2)
    except (KeyError, ValueError):  # no plug-in to write them with
        for name in "ac":
            for number in (2, 3):
                put(root / name, bytes([number, ord(name)]), f"{number}.heic")
