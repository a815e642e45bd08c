"""Images in memory: a pool with labels, conversion and digests of images, and samples of a pool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.errors import DataError

Rows = NDArray[np.int64]
"""Row numbers of images in a pool, class ids or labels, int64 [n]."""
FEW_IMAGES = 64
"""Images that are converted at a time."""


@dataclass(frozen=True)
class ImagePool:
    """Labelled images in memory, of one or more datasets.

    `images` uint8 [n, 3, h, w]; `labels` int64 [n], class ids 0..classes-1 that are unique over all datasets;
    `dataset_of_class` int64 [classes], for each class the place of its dataset in `datasets`, their names.
    DataError if shapes or types differ from this.
    """

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
            raise DataError(
                f"{len(self.images)} images but {len(self.labels)} labels; give one label per image"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.dataset_of_class)

    @cached_property
    def rows_of_class(self) -> tuple[Rows, ...]:
        """The row numbers of each class."""
        return group_places(self.labels, self.classes)

    @cached_property
    def class_sizes(self) -> Rows:
        """Images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=self.classes)

    @cached_property
    def classes_of_dataset(self) -> tuple[Rows, ...]:
        """The class ids of each dataset, ascending."""
        return group_places(self.dataset_of_class, len(self.datasets))


def group_places(labels: Rows, groups: int) -> tuple[Rows, ...]:
    """For each of so many groups, the places of its number among `labels` int64 [n], ascending. They are sorted once:
    looking for each group in all of them would take n × groups."""
    order = np.argsort(labels, kind="stable")
    return tuple(np.split(order, np.cumsum(np.bincount(labels, minlength=groups))[:-1]))


def as_uint8(images: torch.Tensor, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """float32 [n, 3, h, w] in [0, 1] → uint8 [n, 3, h, w]; exact for images that were uint8 before. The result is
    `into` where that is given."""
    array = np.empty(tuple(images.shape), np.uint8) if into is None else into
    target = torch.from_numpy(array)
    for start in range(0, len(images), FEW_IMAGES):  # what is in between takes the memory of few
        part = images[start : start + FEW_IMAGES]
        target[start : start + FEW_IMAGES] = (part * 255).round_().clamp_(0, 255)
    return array


def hash_images(images: NDArray[np.uint8]) -> list[bytes]:
    """A digest of 16 bytes per image; equal images have equal digests, so that they are embedded only once."""
    return [hashlib.blake2b(i.tobytes(), digest_size=16).digest() for i in images]


def check_support(images: NDArray[np.uint8], labels: Rows, ways: int) -> None:
    """DataError if the numbers of support images and labels differ, or a class of 0..ways-1 has no image."""
    if len(images) != len(labels):
        raise DataError(f"{len(images)} support images but {len(labels)} labels; give one label per image")
    if set(labels.tolist()) != set(range(ways)):
        raise DataError(
            f"each of {ways} classes needs a support image, but the labels are {sorted(set(labels.tolist()))}; "
            f"give one image or more of each class 0 to {ways - 1}"
        )


def take_share_of_each_class(labels: Rows, share: float, rng: np.random.Generator | None = None) -> Rows:
    """Rows, ascending, of this share of the images of every class, and of two at least if the class has them.

    The first images of a class, or random ones if `rng` is given.
    """
    if share >= 1:
        return np.arange(len(labels))
    present, place = np.unique(labels, return_inverse=True)
    rows: Sequence[Rows] = group_places(place, len(present))
    if rng is not None:
        rows = [rng.permutation(r) for r in rows]
    return np.sort(np.concatenate([r[: max(int(share * len(r)), 2)] for r in rows]))


def choose_rows(pool: ImagePool, classes: Rows, per_class: int, limit: int, rng: np.random.Generator) -> Rows:
    """About `limit` rows, ascending, of random images of these classes, at most `per_class` of each.

    Takes whole classes in random order until the limit is reached. Datasets take turns, and each gives two classes or
    more, so that none is left out.
    """
    places = group_places(pool.dataset_of_class[classes], len(pool.datasets))
    queues = [rng.permutation(classes[own]) for own in places]
    rows: list[Rows] = []
    count = 0
    for place, c in enumerate(_in_turns(queues)):
        if count >= limit and place >= 2 * len(queues):
            break
        rows.append(rng.permutation(pool.rows_of_class[c])[:per_class])
        count += len(rows[-1])
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


def _in_turns(queues: Sequence[Rows]) -> Iterator[int]:
    """The first of each queue, then the second of each that has one, and so on."""
    left = [queue for queue in queues if len(queue)]
    turn = 0
    while left:
        yield from (int(queue[turn]) for queue in left)
        turn += 1
        left = [queue for queue in left if turn < len(queue)]
