"""The order in which a submission sees the queries of a task.

The draw of tasks follows the seed, which is public, and the sizes of the classes. So a submission could draw the
tasks again and read the label of a query off its place. Therefore it sees the queries in an order that also follows
from bytes of image files of meta-test, which it cannot read. Predictions are put back into the order of the draw. The
same data and seed give the same order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.splits import Part

FILES = 64
"""Image files of a part whose bytes count."""
MOST_BYTES = 2**16
"""Of each of them."""


@dataclass(frozen=True)
class QueryOrders:
    """The orders of all tasks of a run."""

    key: bytes

    @classmethod
    def of(cls, parts: Iterable[Part], seed: int) -> QueryOrders:
        """Of a run with this seed on the parts for meta-test."""
        digest = hashlib.blake2b(str(seed).encode(), digest_size=16)
        for part in parts:
            files = [part.dataset.files[row] for row in part.rows]
            digest.update("\0".join(file.name for file in files).encode(errors="surrogateescape"))
            for place in np.unique(np.linspace(0, len(files) - 1, FILES).astype(int)):
                with contextlib.suppress(OSError):  # its pixels came from the cache, and it is gone
                    digest.update(_read_middle(files[place]))
        return cls(digest.digest())

    def of_task(self, number: int, queries: int) -> NDArray[np.int64]:
        """Which query of the draw is shown at each place, int64 [queries]; `number`: of the task."""
        return np.random.default_rng([number, *self.key]).permutation(queries)


def _read_middle(file: Path) -> bytes:
    """Of an image that is larger, what lies behind headers that its size may tell."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - MOST_BYTES, 0) // 2)
        return stream.read(MOST_BYTES)


def put_back(predictions: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of predictions, made in this order, in that of the draw."""
    drawn = np.empty_like(predictions)
    drawn[order] = predictions
    return drawn
