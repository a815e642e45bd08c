"""What a portfolio takes of the memory, in bytes, predicted from sizes where the budget is small: pure functions.

The figures were measured with the allocator that ingestion sets for such budgets, which gives back what is freed:
see docs/budgets.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autometa.heads import find_metric
from autometa.heads.modes import collect_keys

FLOAT = 4
FIT_MATRICES = 5
"""Matrices as large as that of a metric which fitting one takes for a moment."""
ANSWER_MATRICES, MODE_MATRICES = 3, 4
"""Matrices float64 of inner products of the images of a task, at all and for each mode."""
FOLD_BYTES = 200 * 10**6
"""What asking the folds takes for a moment: they have batches of episodes."""
WORK_BYTES = 25 * 10**6
"""Of a pass of a network with few images, and what the libraries set up at the first."""
NETWORK_COPIES = 2
"""Of the weights: while they are loaded, and in the order of PyTorch's fast convolutions."""


@dataclass(frozen=True)
class Task:
    """The largest task of meta-test: its images, and their size."""

    images: int
    px: int

    def answer_bytes(self, modes: Sequence[str]) -> int:
        """To answer it, its images embedded."""
        return 8 * self.images**2 * (ANSWER_MATRICES + MODE_MATRICES * len(modes))


def learned_metrics(modes: Iterable[str]) -> set[str]:
    """Names of the metrics of some modes that are fitted to classes."""
    return {name for name, _ in collect_keys(modes) if find_metric(name).learned}


def fitting_bytes(width: int, modes: Sequence[str], groups: int) -> int:
    """To fit the metrics of some modes to features of this width, with statistics of so many groups of classes."""
    learned = learned_metrics(modes)
    if not learned:
        return 0
    powers = {find_metric(name).power for name in learned}
    return FLOAT * width**2 * (len(powers) * groups + FIT_MATRICES) + metric_bytes(width, modes) // 2


def metric_bytes(width: int, modes: Sequence[str]) -> int:
    """Of the metrics of some modes in a process that answers."""
    return FLOAT * width**2 * len(learned_metrics(modes))


def view_bytes(width: int, weights: int, engine: int, modes: Sequence[str], images: int) -> int:
    """Of one view in meta-test: its network with an engine of so many bytes, its metrics, features of its images."""
    return NETWORK_COPIES * weights + engine + metric_bytes(width, modes) + FLOAT * width * images
