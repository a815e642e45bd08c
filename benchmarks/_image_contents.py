"""Which datasets show the same pictures, told by the content of their images and not by their names."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingestion import read_labelled
from ingestion.images import decode_dataset, default_cache_dir

GRID = 8
"""Cells of an image on each side whose brightness is compared with that of their neighbours."""
MOST_DIFFERENT = 8
"""Of the 112 comparisons of two images, how many may differ in two sizes of one picture."""
LEAST_DETAIL = 24
"""Comparisons that must show an edge: an image with fewer, such as a letter, says too little to be recognised."""
EDGE = 0.02
"""Difference of brightness, in 0..1, from which on two cells show an edge."""
LEAST_SHARE = 0.1
"""Share of the images of a dataset that another one must show, too, to be a version of it."""

SIDE = 32
"""Pixels of an image from which a fingerprint is taken."""

Fingerprints = NDArray[np.int8]


def image_files(folder: Path) -> list[Path]:
    """The image files of a dataset in Meta-Album layout."""
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        return [folder / "images" / row["FILE_NAME"] for row in csv.DictReader(stream)]


def file_digests(folder: Path) -> dict[str, Path]:
    """Digests of the image files of a dataset, with one that has it."""
    return {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in image_files(folder)}


def find_shared_image(folders: Sequence[Path], others: Sequence[Path]) -> tuple[Path, Path] | None:
    """An image file of one of the datasets that one of the others has, too, byte for byte: both files."""
    known = {digest: file for folder in folders for digest, file in file_digests(folder).items()}
    for folder in others:
        for digest, file in file_digests(folder).items():
            if digest in known:
                return known[digest], file
    return None


def find_version(folders: Sequence[Path], others: Sequence[Path]) -> tuple[Path, Path] | None:
    """One of the datasets and one of the others that show the same pictures, in whatever sizes."""
    own, theirs = ({folder: read_fingerprints(folder) for folder in some} for some in (folders, others))
    pairs = product(own, theirs)
    return next((pair for pair in pairs if is_version(own[pair[0]], theirs[pair[1]])), None)


def read_fingerprints(folder: Path) -> Fingerprints:
    """Of the images of a dataset as a run sees them, made small."""
    return fingerprints(decode_dataset(read_labelled(folder), SIDE, default_cache_dir()).images)


def fingerprints(images: NDArray[np.uint8]) -> Fingerprints:
    """Images [n, 3, h, w] → int8 [k, 112], k ≤ n: of the images with enough detail, whether brightness rises (1),
    falls (-1) or neither (0) from each cell of a grid to the next one, to the right and downwards."""
    cells = np.stack([part.mean((1, 2)) for part in _split_into_cells(images.mean(1) / 255)], axis=1)
    grid = cells.reshape(len(images), GRID, GRID)
    steps = [np.diff(grid, axis=axis).reshape(len(images), GRID * (GRID - 1)) for axis in (2, 1)]
    changes = np.concatenate(steps, axis=1)
    found = np.where(np.abs(changes) < EDGE, 0, np.sign(changes)).astype(np.int8)
    return found[(found != 0).sum(1) >= LEAST_DETAIL]


def _split_into_cells(grey: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Brightness [n, h, w] → that of each cell of the grid [n, ., .], row by row."""
    rows = np.array_split(grey, GRID, axis=1)
    return [cell for row in rows for cell in np.array_split(row, GRID, axis=2)]


def is_version(own: Fingerprints, other: Fingerprints) -> bool:
    """Whether so many of the images are also in the other dataset, in whatever size, that it is a version of it."""
    if not len(own) or not len(other):
        return False
    nearest = np.array([(one != other).sum(1).min() for one in own])
    return float((nearest <= MOST_DIFFERENT).mean()) >= LEAST_SHARE


def group_versions(of_sets: Mapping[str, Fingerprints]) -> dict[str, str]:
    """For each dataset the first one, in their order, that it is a version of: itself, or one before it."""
    groups: dict[str, str] = {}
    for name, own in of_sets.items():
        heads = [head for head in dict.fromkeys(groups.values()) if is_version(own, of_sets[head])]
        groups[name] = heads[0] if heads else name
    return groups
