"""Small pictures of plain colours, as arrays and as folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ingestion.loose_images import encode_pixels

COLOURS = {"blue": (30, 40, 220), "green": (20, 200, 60), "red": (220, 30, 30)}


def picture(colour: str, number: int, px: int = 48) -> np.ndarray:
    """uint8 [px, px, 3]: a plain colour with noise."""
    noise = np.random.default_rng([number, *COLOURS[colour]]).integers(-20, 20, (px, px, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


def pictures(
    count: int, start: int = 0, colours: tuple[str, ...] = tuple(COLOURS)
) -> tuple[np.ndarray, list[str]]:
    """`count` pictures of each colour [n, px, px, 3], and their labels."""
    rows = [(picture(colour, start + i), colour) for colour in colours for i in range(count)]
    return np.stack([row for row, _ in rows]), [label for _, label in rows]


def write_folder(folder: Path, count: int, colours: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """A folder with a subfolder of pictures for each colour."""
    for colour in colours:
        (folder / colour).mkdir(parents=True)
        for i in range(count):
            (folder / colour / f"{i}.png").write_bytes(encode_pixels(picture(colour, i)))
    return folder


def many_classes(folder: Path) -> Path:
    """Six classes of ten images, enough to search."""
    for number, colour in enumerate(2 * tuple(COLOURS)):
        for place in range(10):
            file = folder / f"class {number}" / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_pixels(picture(colour, 100 * number + place)))
    return folder
