"""Collecting the image pool from the meta-train generator of the challenge."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import DataError
from autometa.core.time_policy import POLICY
from autometa.data.images import ImagePool, as_uint8, hash_images, take_share_of_each_class
from autometa.data.mapped import copy_rows

MEMORY_SHARE = 0.4
"""Share of the memory left to fill with images."""
WINDOW = 12
LEAST_NEW_SHARE = 0.05
"""Reading a stream ends once a smaller share than this of the images in its last `WINDOW` items is new."""
ENDLESS = 1_000_000
"""Number of items to ask a stream for, which ends it in no practical case."""

BLOCK_BYTES = 2**26
"""Of images that are collected; so large a block has pages of its own, which the system gets back."""

LabelledImage = tuple[NDArray[np.uint8], Hashable, str]
"""An image uint8 [3, h, w], its label within its dataset, and the name of the dataset."""


def collect_pool(
    generator: Any, time: TimeBudget, memory: MemoryBudget, report: Callable[[str], None]
) -> ImagePool:
    """All meta-train images that time and memory allow.

    Our ingestion offers whole datasets as `generator.image_sets`. From the original ingestion, images are collected
    from the stream of tasks or batches. DataError if the generator gives no image.
    """
    sets = getattr(generator, "image_sets", None)
    pool = _join_datasets(sets, memory) if sets else _read_stream(generator, time, memory)
    report(f"pool: {len(pool.images)} images, {pool.classes} classes, {len(pool.datasets)} dataset(s)")
    return pool


def _join_datasets(sets: Any, memory: MemoryBudget) -> ImagePool:
    """Join the datasets. If memory is short, take the same share of the images of every class."""
    if memory.is_small:
        return _map_datasets(sets)
    need = sum(s.images.nbytes for s in sets)
    share = min(1.0, MEMORY_SHARE * max(memory.left_bytes(), 0) / max(need, 1))
    if len(sets) == 1 and not sets[0].images.flags.writeable:
        share = 1.0  # one dataset stays where it is, in a shared file, which takes no memory of this process
    chosen = [take_share_of_each_class(dataset.labels, share) for dataset in sets]
    labels, dataset_of_class = [], []
    first = 0
    for number, (dataset, rows) in enumerate(zip(sets, chosen, strict=True)):
        classes = int(dataset.labels.max()) + 1
        labels.append(dataset.labels[rows] + first)
        dataset_of_class += [number] * classes
        first += classes
    images = sets[0].images
    if len(sets) > 1 or share < 1:
        images = copy_rows([dataset.images for dataset in sets], chosen, in_file=False)
    return ImagePool(
        images, np.concatenate(labels), np.array(dataset_of_class), tuple(dataset.name for dataset in sets)
    )


def _map_datasets(sets: Any) -> ImagePool:
    """All images of all datasets, in a file."""
    rows = [np.arange(len(dataset.labels)) for dataset in sets]
    classes = [int(dataset.labels.max()) + 1 for dataset in sets]
    firsts = np.cumsum([0, *classes[:-1]])
    images = sets[0].images
    if len(sets) > 1 or images.flags.writeable:
        images = copy_rows([dataset.images for dataset in sets], rows, in_file=True)
    return ImagePool(
        images,
        np.concatenate([dataset.labels + first for dataset, first in zip(sets, firsts, strict=True)]),
        np.repeat(np.arange(len(sets)), classes),
        tuple(dataset.name for dataset in sets),
    )


def _read_stream(generator: Any, time: TimeBudget, memory: MemoryBudget) -> ImagePool:
    """Read a stream until it brings hardly any new image, or time or memory is used up."""
    collected, labels = _Blocks(), dict[bytes, tuple[Hashable, str]]()
    reading = time.share(POLICY.stream_share)
    most_bytes = MEMORY_SHARE * memory.left_bytes()
    recent: list[float] = []
    for item in generator(ENDLESS):
        seen = new = 0
        for image, label, dataset in _images_in(item):
            key = hash_images(image[None])[0]
            seen += 1
            if key not in labels:
                labels[key] = label, dataset
                collected.add(image)
                new += 1
        recent = [*recent[1 - WINDOW :], new / max(seen, 1)]
        is_read = len(recent) == WINDOW and sum(recent) / WINDOW < LEAST_NEW_SHARE
        if is_read or reading.left_s() <= 0 or collected.nbytes > most_bytes:
            break
    if not labels:
        raise DataError("the meta-train generator gave no image: check that the dataset has images")
    return _build_pool(collected.join(), list(labels.values()))


class _Blocks:
    """Images of one shape, copied into blocks one after the other. Views of what a stream gives would keep all of it,
    and many small arrays would keep what was freed between them."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []
        self._count = 0
        self.nbytes = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """One image more, uint8 [3, h, w]. DataError where it is of another shape than those before."""
        if not self._blocks or self._count % len(self._blocks[0]) == 0:
            rows = max(BLOCK_BYTES // max(image.nbytes, 1), 1)
            self._blocks.append(np.empty((rows, *image.shape), np.uint8))
        block = self._blocks[-1]
        if image.shape != block.shape[1:]:
            raise DataError(
                f"the meta-train generator gave images {block.shape[1:]} and {image.shape}; give one size"
            )
        block[self._count % len(block)] = image
        self._count += 1
        self.nbytes += image.nbytes

    def join(self) -> NDArray[np.uint8]:
        """All images [n, 3, h, w]. Each block is freed when it is copied."""
        blocks, self._blocks = self._blocks[::-1], []
        images = np.empty((self._count, *blocks[0].shape[1:]), np.uint8)
        place = 0
        while blocks:
            block = blocks.pop()[: self._count - place]
            images[place : place + len(block)] = block
            place += len(block)
        return images


def _images_in(item: Any) -> Iterator[LabelledImage]:
    """The images of a task, support and query, or of a batch (images, labels), which names no dataset."""
    if hasattr(item, "support_set"):
        dataset = item.dataset
        parts = [(images, original) for images, _, original in (item.support_set, item.query_set)]
    else:
        dataset, parts = "all", [item]
    for images, labels in parts:
        for image, label in zip(as_uint8(images), labels.tolist(), strict=True):
            yield image, label, dataset


def _build_pool(images: NDArray[np.uint8], found: list[tuple[Hashable, str]]) -> ImagePool:
    """A pool of images with these labels and datasets, numbered in the order in which they were seen."""
    datasets = {name: i for i, name in enumerate(dict.fromkeys(dataset for _, dataset in found))}
    classes = {c: i for i, c in enumerate(dict.fromkeys((dataset, label) for label, dataset in found))}
    return ImagePool(
        images,
        np.array([classes[dataset, label] for label, dataset in found]),
        np.array([datasets[dataset] for dataset, _ in classes]),
        tuple(datasets),
    )
