"""Images in memory: a pool with labels, digests, and shares of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.errors import DataError


def image_keys(images: NDArray[np.uint8]) -> list[bytes]:
    """A digest per image, so that equal images are embedded once."""
    return [hashlib.blake2b(i.tobytes(), digest_size=16).digest() for i in images]


Rows = NDArray[np.int64]


def as_uint8(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images float32 [n, 3, h, w] in [0, 1] → uint8; exact for images that were uint8 before."""
    array: NDArray[np.uint8] = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array


def check_support(images: NDArray[np.uint8], labels: Rows, ways: int) -> None:
    """DataError where support images and labels do not fit or a class of 0..ways-1 has no image."""
    if len(images) != len(labels) or set(labels.tolist()) != set(range(ways)):
        raise DataError(
            f"{len(images)} support images, {len(labels)} labels: each of {ways} classes needs one"
        )


@dataclass(frozen=True)
class ImagePool:
    """Images in memory: uint8 [n, 3, h, w]; labels int64 [n], class ids 0..classes-1 over all datasets;
    `dataset_of_class` int64 [classes]; `datasets` their names."""

    images: NDArray[np.uint8]
    labels: Rows
    dataset_of_class: Rows
    datasets: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.images.dtype != np.uint8:
            raise DataError(
                f"pool images must be uint8 [n, 3, h, w], not {self.images.dtype} {self.images.shape}"
            )
        if len(self.labels) != len(self.images):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.dataset_of_class)

    @cached_property
    def rows_of_class(self) -> tuple[Rows, ...]:
        """For every class its row numbers."""
        order = np.argsort(self.labels, kind="stable")
        sizes = np.bincount(self.labels, minlength=self.classes)
        return tuple(np.split(order, np.cumsum(sizes)[:-1]))


def share_of_classes(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Rows, ascending: this share of the images of every class, the first or, with `rng`, any; at least two
    where it has them."""
    if share >= 1:
        return np.arange(len(labels))
    rows = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    if rng is not None:
        rows = [rng.permutation(r) for r in rows]
    return np.sort(np.concatenate([r[: max(int(share * len(r)), 2)] for r in rows]))


def rows_within(pool: ImagePool, classes: Rows, per_class: int, limit: int, rng: np.random.Generator) -> Rows:
    """About `limit` rows of these classes: at most `per_class` of each, and fewer classes if needed
    (datasets in turn, so that none is left out)."""
    datasets = range(len(pool.datasets))
    queues = [rng.permutation(classes[pool.dataset_of_class[classes] == d]) for d in datasets]
    turns = [
        c
        for turn in range(max(map(len, queues), default=0))
        for c in (q[turn] for q in queues if turn < len(q))
    ]
    rows: list[Rows] = []
    count = 0
    if not turns:
        return np.empty(0, dtype=np.int64)
    for place, c in enumerate(turns):
        if count >= limit and place >= 2 * len(queues):
            break
        rows.append(rng.permutation(pool.rows_of_class[c])[:per_class])
        count += len(rows[-1])
    return np.sort(np.concatenate(rows))
