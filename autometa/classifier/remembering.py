"""Which examples a saved classifier remembers: as many as its file, its size and the time that is left allow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autometa.classifier.notes import Note, Report
from autometa.classifier.serving import fitting_rows
from autometa.classifier.sources import Source
from autometa.classifier.spaces import Encoded, concatenate
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.units import show_bytes
from autometa.data.images import ImagePool

REMEMBERED, REMEMBERED_IN_ALL = 20, 2000
"""Examples at most: of each class, and of all."""
FIRST, CHUNK = 16, 64
"""Images that are encoded at once: the first two times, and from then on. The very first ones build and choose
engines, and tell nothing of the time of others."""
BESIDE_BYTES = 4096
"""Of a description and of the head of a file of tensors, beside the names of classes."""
ENCODING_SHARE = 0.75
"""Of the time that is left: what encoding the examples may take."""


@dataclass(frozen=True)
class Room:
    """Bytes that a model may have (None: any), and those that its learner has."""

    most_bytes: int | None
    learner_bytes: int

    def left(self, names: Sequence[str]) -> int | None:
        """Bytes for examples, beside a description with these names of classes."""
        if self.most_bytes is None:
            return None
        return self.most_bytes - self.learner_bytes - len(json.dumps(names, indent=1)) - BESIDE_BYTES


def usual_number(pool: ImagePool) -> int:
    """How many images of each class of a pool are remembered where nothing is short."""
    return min(max(REMEMBERED_IN_ALL // pool.classes, 1), REMEMBERED)


def count_images(pool: ImagePool, each: int) -> int:
    """How many images are at most `each` of each class."""
    return int(np.minimum(pool.class_sizes, each).sum())


@dataclass(frozen=True)
class Examples:
    """Images of a pool whose classes have `names`, drawn by a `seed`."""

    pool: ImagePool
    names: Sequence[str]
    seed: int

    def rows(self, each: int) -> NDArray[np.int64]:
        """At most `each` images of each class, in rounds: one of each class, then a second one. Fewer are the first
        of more."""
        rng = np.random.default_rng(self.seed)
        drawn = [rng.permutation(of_class)[:each] for of_class in self.pool.rows_of_class]
        rounds = np.concatenate([np.arange(len(of_class)) for of_class in drawn])
        return np.concatenate(drawn)[np.argsort(rounds, kind="stable")]


def encode_examples(
    source: Source, examples: Examples, room: Room, budget: TimeBudget, report: Report
) -> tuple[Encoded, list[str]]:
    """Encoded images and the names of their classes: the same number of each class, one at least. A note says where
    there is no room or no time for as many as usual."""
    pool = examples.pool
    each = min(_count_fitting(source, examples, room, report), int(pool.class_sizes.max()))
    rows = examples.rows(each)
    ends = [count_images(pool, number) for number in range(1, each + 1)]
    encoded = _encode_in_time(source, pool.images, rows, ends, budget)
    done = len(next(iter(encoded.values())))
    if done < len(rows):
        fewer = sum(end <= done for end in ends)
        report(Note(f"{_told_of(fewer, each)}: no time is left to encode more"))
        done = ends[fewer - 1]
        encoded = {name: of_all[:done] for name, of_all in encoded.items()}
    return encoded, [examples.names[label] for label in pool.labels[rows[:done]]]


def _encode_in_time(
    source: Source,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    ends: Sequence[int],
    budget: TimeBudget,
) -> Encoded:
    """These rows of images in order, as many rounds of them as there is time for, and the first one at least; `ends`:
    how many rows each number of rounds has."""
    encoding, parts, done, image_s = budget.share(ENCODING_SHARE), list[Encoded](), 0, 0.0
    while done < len(rows):
        affordable = done + int(max(encoding.left_s(), 0.0) / max(image_s, 1e-9))
        until = max([end for end in ends if end <= affordable] or ends[:1])
        count = min(FIRST if len(parts) < 2 else CHUNK, until - done)
        if count <= 0:
            break
        elapsed, chosen = stopwatch(budget.clock), rows[done : done + count]
        done += len(chosen)
        parts.append(source.space.encode(images[chosen], ahead=len(rows) - done))
        spent_s = elapsed()
        is_typical = len(parts) > 1 or not encoding.fits(spent_s)
        image_s = spent_s / len(chosen) if is_typical else 0.0
    return concatenate(parts)


def _count_fitting(source: Source, examples: Examples, room: Room, report: Report) -> int:
    """How many of each class there is room for; one at least."""
    left, usual = room.left(examples.names), usual_number(examples.pool)
    if left is None or room.most_bytes is None:
        return usual
    fitting = fitting_rows(source, left, usual, examples.pool)
    if count_images(examples.pool, fitting) < count_images(examples.pool, usual):
        limit, most = show_bytes(room.most_bytes), min(usual, int(examples.pool.class_sizes.max()))
        report(Note(f"{_told_of(fitting, most)}: --max-model-size {limit} has no room for more"))
    return fitting


def _told_of(fewer: int, each: int) -> str:
    return f"{fewer} examples of each class are remembered, not {each}"
