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
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.units import show_bytes
from autometa.data.images import ImagePool

REMEMBERED, REMEMBERED_IN_ALL = 20, 2000
"""Examples at most: of each class, and of all."""
TIMED = 64
"""Images by which encoding is timed, after as many that build and choose engines."""
BESIDE_BYTES = 4096
"""Of a description and of the head of a file of tensors, beside the names of classes."""
ENCODING_SHARE = 0.6
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


@dataclass(frozen=True)
class Examples:
    """Images of a pool whose classes have `names`, drawn by a `seed`."""

    pool: ImagePool
    names: Sequence[str]
    seed: int

    def rows(self, each: int) -> NDArray[np.int64]:
        """At most `each` images of each class; fewer are a part of more."""
        rng = np.random.default_rng(self.seed)
        return np.sort(
            np.concatenate([rng.permutation(of_class)[:each] for of_class in self.pool.rows_of_class])
        )


def choose_examples(
    source: Source, examples: Examples, room: Room, budget: TimeBudget, report: Report
) -> tuple[NDArray[np.uint8], list[str]]:
    """Images uint8 [n, px, px, 3] and the names of their classes: the same number of each class, one at least. A note
    says where there is no room or no time for as many as usual."""
    pool = examples.pool
    each = min(max(REMEMBERED_IN_ALL // pool.classes, 1), REMEMBERED)
    each = _count_fitting(source, examples, room, each, report)
    rows = examples.rows(each)
    if len(rows) > 2 * TIMED:
        fewer = min(_count_affordable(source, pool, rows, budget), each)
        if fewer < each:
            report(Note(f"{_told_of(fewer, each)}: no time is left to encode more"))
        rows = examples.rows(fewer)
    return np.moveaxis(pool.images[rows], 1, -1), [examples.names[label] for label in pool.labels[rows]]


def _count_fitting(source: Source, examples: Examples, room: Room, each: int, report: Report) -> int:
    """How many of each class there is room for; one at least."""
    left = room.left(examples.names)
    if left is None or room.most_bytes is None:
        return each
    fitting = fitting_rows(source, left, each, examples.pool)
    if len(examples.rows(fitting)) < len(examples.rows(each)):
        limit, each = show_bytes(room.most_bytes), min(each, int(examples.pool.class_sizes.max()))
        report(Note(f"{_told_of(fitting, each)}: --max-model-size {limit} has no room for more"))
    return fitting


def _told_of(fewer: int, each: int) -> str:
    return f"{fewer} examples of each class are remembered, not {each}"


def _count_affordable(source: Source, pool: ImagePool, rows: NDArray[np.int64], budget: TimeBudget) -> int:
    """How many of each class there is time to encode; one at least."""
    source.space.encode(pool.images[rows[:TIMED]], ahead=len(rows))
    elapsed = stopwatch(budget.clock)
    source.space.encode(pool.images[rows[TIMED : 2 * TIMED]], ahead=len(rows))
    class_s = elapsed() / TIMED * pool.classes
    return max(int(ENCODING_SHARE * budget.left_s() / max(class_s, 1e-9)), 1)
