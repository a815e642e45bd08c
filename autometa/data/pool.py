"""The image pool of a meta-training, from whatever the challenge's generator gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import DataError
from autometa.data.images import ImagePool, as_uint8, image_keys, share_of_classes

STREAM_SHARE = 0.1
"""Share of the time left that reading a stream may take."""
MEMORY_SHARE = 0.4
WINDOW = 12
FRESH_ENOUGH = 0.05
"""A stream is read out once its last `WINDOW` items bring a smaller share of new images than this."""
ENDLESS = 1_000_000

Row = tuple[NDArray[np.uint8], Hashable, str]


def pool_from_generator(
    generator: Any, time: TimeBudget, memory: MemoryBudget, report: Callable[[str], None]
) -> ImagePool:
    """All meta-train images that time and memory allow: directly from `generator.image_sets` where our
    ingestion offers them, else collected from the stream of tasks or batches.

    Raises DataError where the generator gives no image.
    """
    sets = getattr(generator, "image_sets", None)
    pool = _from_sets(sets, memory) if sets else _from_stream(generator, time, memory)
    report(f"pool: {len(pool.images)} images, {pool.classes} classes, {len(pool.datasets)} dataset(s)")
    return pool


def _from_sets(sets: Any, memory: MemoryBudget) -> ImagePool:
    """Join the datasets; where memory is short, the same share of every class."""
    need = sum(s.images.nbytes for s in sets)
    share = min(1.0, MEMORY_SHARE * max(memory.left_bytes(), 0) / max(need, 1))
    images, labels, dataset_of_class = [], [], []
    first = 0
    for number, dataset in enumerate(sets):
        classes = int(dataset.labels.max()) + 1
        rows = share_of_classes(dataset.labels, share)
        images.append(dataset.images[rows] if len(sets) > 1 or share < 1 else dataset.images)
        labels.append(dataset.labels[rows] + first)
        dataset_of_class += [number] * classes
        first += classes
    joined = images[0] if len(images) == 1 else np.concatenate(images)
    return ImagePool(
        joined, np.concatenate(labels), np.array(dataset_of_class), tuple(dataset.name for dataset in sets)
    )


def _from_stream(generator: Any, time: TimeBudget, memory: MemoryBudget) -> ImagePool:
    rows: dict[bytes, Row] = {}
    reading = time.share(STREAM_SHARE)
    most_bytes = MEMORY_SHARE * memory.left_bytes()
    used = 0
    recent: list[float] = []
    for item in generator(ENDLESS):
        seen = fresh = 0
        for image, name, dataset in itertools.chain.from_iterable(_rows_of(item)):
            key = image_keys(image[None])[0]
            seen += 1
            if key not in rows:
                rows[key] = image, name, dataset
                fresh += 1
                used += image.nbytes
        recent = [*recent[1 - WINDOW :], fresh / max(seen, 1)]
        read_out = len(recent) == WINDOW and sum(recent) / WINDOW < FRESH_ENOUGH
        if read_out or reading.left_s() <= 0 or used > most_bytes:
            break
    if not rows:
        raise DataError("the meta-train generator gave no image")
    return _from_rows(list(rows.values()))


def _rows_of(item: Any) -> Iterator[list[Row]]:
    """Images of a task (both sets, with their dataset) or of a batch [images, labels]."""
    if hasattr(item, "support_set"):
        for images, _, original in (item.support_set, item.query_set):
            labels = original.tolist()
            yield [(i, c, item.dataset) for i, c in zip(as_uint8(images), labels, strict=True)]
    else:
        images, labels = item
        yield [(i, c, "all") for i, c in zip(as_uint8(images), labels.tolist(), strict=True)]


def _from_rows(rows: list[Row]) -> ImagePool:
    datasets = {name: i for i, name in enumerate(dict.fromkeys(dataset for _, _, dataset in rows))}
    classes = {c: i for i, c in enumerate(dict.fromkeys((dataset, label) for _, label, dataset in rows))}
    return ImagePool(
        np.stack([image for image, _, _ in rows]),
        np.array([classes[dataset, label] for _, label, dataset in rows]),
        np.array([datasets[dataset] for dataset, _ in classes]),
        tuple(datasets),
    )
