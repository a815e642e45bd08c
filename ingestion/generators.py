"""The meta-training data that a submission gets: tasks or batches, as tensors. Runs in the child.

PyTorch takes seconds to import: whoever asks for no task or batch does without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingestion.tasks import Rows, TaskConfig, TaskDraw, draw_train_tasks, group_rows

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    ImageSet = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TrainingSet:
    """One meta-training dataset: images uint8 [n, 3, px, px] (shared memory, read-only), labels int64 [n]."""

    name: str
    images: NDArray[np.uint8]
    labels: Rows

    @cached_property
    def rows_of_class(self) -> Sequence[Rows]:
        """For every class id, its row numbers in ascending order. Each task that is drawn asks for them."""
        return group_rows(self.labels, self.classes)

    @cached_property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class Task:
    """One task, with the attribute names of the format.

    `support_set`, `query_set`: images float32 [n, 3, px, px] in [0, 1], labels int64 [n] in 0..ways-1,
    original labels int64 [n] (class ids of the dataset). `original_class_idx`: class id per label.
    """

    num_ways: int
    num_shots: int
    support_set: ImageSet
    query_set: ImageSet
    original_class_idx: Rows
    dataset: str


def as_float(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 images → float32 tensor in [0, 1]; always a copy."""
    import torch  # noqa: PLC0415

    return torch.from_numpy(np.array(images)).float().div_(255)


def _image_set(dataset: TrainingSet, rows: Rows, labels: Rows, classes: Rows) -> ImageSet:
    import torch  # noqa: PLC0415

    tensors = torch.from_numpy(np.array(labels)), torch.from_numpy(classes[labels])
    return as_float(dataset.images[rows]), *tensors


class TaskGenerator:
    """`generator(n)` yields n tasks; each call starts again from the seed, as in the original program.

    `image_sets` is an addition of this program: the whole datasets, so that learners need not collect them task by
    task.
    """

    def __init__(self, image_sets: Sequence[TrainingSet], config: TaskConfig, seed: int) -> None:
        self.image_sets = tuple(image_sets)
        self._config = config
        self._seed = seed

    def __call__(self, n: int) -> Iterator[Task]:
        for draw in draw_train_tasks(self.image_sets, self._config, n, self._seed):
            yield self._task(draw)

    def _task(self, draw: TaskDraw) -> Task:
        dataset = self.image_sets[draw.dataset]
        return Task(
            num_ways=draw.ways,
            num_shots=draw.shots,
            support_set=_image_set(dataset, draw.support_rows, draw.support_labels, draw.classes),
            query_set=_image_set(dataset, draw.query_rows, draw.query_labels, draw.classes),
            original_class_idx=draw.classes,
            dataset=dataset.name,
        )


class BatchGenerator:
    """`generator(n)` yields n batches [images, labels] over all datasets, labels renumbered globally.
    One shuffled stream: successive calls continue it, the last batch of an epoch can be smaller."""

    def __init__(self, image_sets: Sequence[TrainingSet], batch_size: int, seed: int) -> None:
        self.image_sets = tuple(image_sets)
        first_label = np.cumsum([0] + [s.classes for s in image_sets])
        self._labels = np.concatenate([s.labels + o for s, o in zip(image_sets, first_label, strict=False)])
        self._first_row = np.cumsum([0] + [len(s.labels) for s in image_sets])
        self._batch_size, self._seed = batch_size, seed

    @cached_property
    def _stream(self) -> Iterator[Rows]:
        """Row numbers of one batch after the other, without end."""
        import torch  # noqa: PLC0415
        from torch.utils.data import DataLoader  # noqa: PLC0415

        loader: DataLoader[int] = DataLoader(
            range(len(self._labels)),  # type: ignore[arg-type] # only needs a length and items
            self._batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(self._seed),
            collate_fn=np.array,
        )
        return itertools.chain.from_iterable(itertools.repeat(loader))

    def __call__(self, n: int) -> Iterator[list[torch.Tensor]]:
        import torch  # noqa: PLC0415

        for rows in itertools.islice(self._stream, n):
            yield [as_float(self._images(rows)), torch.from_numpy(self._labels[rows])]

    def _images(self, rows: Rows) -> NDArray[np.uint8]:
        sets = np.searchsorted(self._first_row, rows, side="right") - 1
        return np.stack(
            [self.image_sets[s].images[r - self._first_row[s]] for s, r in zip(sets, rows, strict=True)]
        )
