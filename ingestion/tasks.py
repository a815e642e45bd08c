"""The seed-exact draw of tasks (Cross-Domain MetaDL, `metadl-format` §1.2).

A task is first a description that costs little, row numbers and labels; images come later. The order in which
random numbers are taken is part of the format: the same seed gives the tasks of the original program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Rows = NDArray[np.int64]


def group_rows(labels: Rows, classes: int) -> tuple[Rows, ...]:
    """For each of so many classes, the places of its label among `labels` int64 [n], ascending. The labels are sorted
    once: looking for each class in all of them would take images × classes."""
    order = np.argsort(labels, kind="stable")
    return tuple(np.split(order, np.cumsum(np.bincount(labels, minlength=classes))[:-1]))


class TaskConfig(BaseModel):
    """Ways, shots and queries of the tasks of one generator, named as in the format's `config.json`."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    N: int | None = Field(default=None, ge=2)
    min_N: int | None = Field(default=2, ge=1)
    max_N: int | None = Field(default=20, ge=1)
    k: int | None = Field(default=None, ge=1)
    min_k: int | None = Field(default=1, ge=1)
    max_k: int | None = Field(default=20, ge=1)
    query_images_per_class: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _ranges(self) -> TaskConfig:
        for fixed, low, high, name in (
            (self.N, self.min_N, self.max_N, "N"),
            (self.k, self.min_k, self.max_k, "k"),
        ):
            if fixed is None and (low is None or high is None):
                raise ValueError(f"{name} is null, so min_{name} and max_{name} must be given")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} ({low}) is larger than max_{name} ({high})")
        return self


class ClassedDataset(Protocol):
    """The part of a dataset that drawing tasks needs."""

    @property
    def name(self) -> str: ...

    @property
    def rows_of_class(self) -> Sequence[Rows]:
        """For every class id, its row numbers in ascending order."""


@dataclass(frozen=True)
class TaskDraw:
    """One N-way k-shot task as row numbers of its dataset. Labels are 0..ways-1; `classes[label]` is the
    class id in the dataset. Arrays: support [ways * shots], query [ways * queries]."""

    dataset: int
    ways: int
    shots: int
    classes: Rows
    support_rows: Rows
    support_labels: Rows
    query_rows: Rows
    query_labels: Rows


def _draw_count(
    rng: np.random.RandomState, fixed: int | None, bounds: tuple[int | None, int | None], cap: int, floor: int
) -> int:
    """A number of ways or shots: the fixed one, or uniform within `bounds`, clamped to what the data has."""
    if fixed is not None:
        return min(fixed, cap)
    low, high = bounds
    assert low is not None and high is not None
    top = min(high, cap)
    bottom = low if low <= top else max(top - (high - low), floor)
    return int(rng.randint(bottom, top + 1))


def draw_task(
    rng: np.random.RandomState, rows_of_class: Sequence[Rows], config: TaskConfig, dataset: int = 0
) -> TaskDraw:
    """The next task of one dataset; `rng` moves on exactly as in the original program.

    If the smallest class has too few images for the queries, a task has fewer queries; the original program fails
    then. Raises ValueError if a class has a single image.
    """
    smallest = min(len(rows) for rows in rows_of_class)
    queries = min(config.query_images_per_class, max(smallest - 1, 1))
    ways = _draw_count(rng, config.N, (config.min_N, config.max_N), len(rows_of_class), 2)
    most_shots = max(smallest - queries, 1)
    shots = _draw_count(rng, config.k, (config.min_k, config.max_k), most_shots, 1)
    classes = rng.permutation(len(rows_of_class))[:ways]
    picked = np.stack([rng.choice(rows_of_class[c], shots + queries, replace=False) for c in classes], axis=1)
    labels = np.broadcast_to(np.arange(ways), picked.shape)
    support, query = picked[:shots].ravel(), picked[shots:].ravel()
    support_order, query_order = rng.permutation(support.size), rng.permutation(query.size)
    return TaskDraw(
        dataset=dataset,
        ways=ways,
        shots=shots,
        classes=classes,
        support_rows=support[support_order],
        support_labels=labels[:shots].ravel()[support_order],
        query_rows=query[query_order],
        query_labels=labels[shots:].ravel()[query_order],
    )


def draw_test_tasks(
    datasets: Sequence[ClassedDataset], config: TaskConfig, tasks_per_dataset: int, seed: int
) -> Iterator[TaskDraw]:
    """Meta-test: `tasks_per_dataset` tasks of each dataset in turn, one random stream for all."""
    rng = np.random.RandomState(seed)
    for index, dataset in enumerate(datasets):
        for _ in range(tasks_per_dataset):
            yield draw_task(rng, dataset.rows_of_class, config, index)


def draw_train_tasks(
    datasets: Sequence[ClassedDataset], config: TaskConfig, tasks: int, seed: int
) -> Iterator[TaskDraw]:
    """Meta-train and meta-validation: each task from a dataset drawn at random. Every call starts again
    from the seed, so that equal calls give equal tasks, as in the format."""
    rng = np.random.RandomState(seed)
    for _ in range(tasks):
        index = int(rng.randint(0, len(datasets)))
        yield draw_task(rng, datasets[index].rows_of_class, config, index)
