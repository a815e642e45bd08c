"""Episodes as tensors, and where a training loop draws them from: a pool in memory or the challenge's tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.errors import DataError
from autometa.data.episodes import EpisodeBatch, EpisodeSpec
from autometa.data.images import ImagePool, Rows, as_uint8
from autometa.learners.augmentation import NO_AUGMENTATION, Augmentation
from autometa.learners.variants import Variants

Prepare = Callable[[NDArray[np.uint8]], torch.Tensor]
STREAM_CLASSES = 2048
"""Training classes that a stream, which does not say how many it has, may have."""


@dataclass(frozen=True)
class InputEpisodes:
    """b episodes, padded: what an encoder takes, of the support [b, s, ...] with labels int64 [b, s] in
    0..ways-1 (-1: padding), of the query [b, q, ...] with labels [b, q] (-1: padding; any class where they
    are not known), and of images without labels [b, u, ...] where there are any; ways int64 [b]. `classes`
    int64 [b, n] numbers the training class that each label stands for (-1: padding; None: not known)."""

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    query_labels: torch.Tensor
    ways: torch.Tensor
    unlabelled: torch.Tensor | None = None
    classes: torch.Tensor | None = None

    @classmethod
    def of_rows(cls, inputs: torch.Tensor, batch: EpisodeBatch) -> InputEpisodes:
        """A batch of episodes over images whose encoder `inputs` [n, ...] are given."""
        return cls(
            inputs[batch.support_rows],
            batch.support_labels,
            inputs[batch.query_rows],
            batch.query_labels,
            batch.ways,
        )

    def part(self, start: int, stop: int) -> InputEpisodes:
        """The episodes from `start` to before `stop`."""
        return InputEpisodes(
            self.support[start:stop],
            self.support_labels[start:stop],
            self.query[start:stop],
            self.query_labels[start:stop],
            self.ways[start:stop],
            None if self.unlabelled is None else self.unlabelled[start:stop],
            None if self.classes is None else self.classes[start:stop],
        )

    def to(self, device: str) -> InputEpisodes:
        """The same on a device."""
        return InputEpisodes(
            self.support.to(device),
            self.support_labels.to(device),
            self.query.to(device),
            self.query_labels.to(device),
            self.ways.to(device),
            None if self.unlabelled is None else self.unlabelled.to(device),
            None if self.classes is None else self.classes.to(device),
        )


class EpisodeSource(Protocol):
    """Gives batches of training episodes, without end."""

    def draw(self, n: int) -> InputEpisodes:
        """`n` episodes."""
        ...


def draw_subset(rng: np.random.Generator, valid: NDArray[np.bool_], size: int) -> Rows:
    """Indices [..., size] of entries drawn without replacement, in random order, of the valid ones along the
    last axis [..., m]; each row has at least `size` valid entries."""
    keys = rng.random(valid.shape, dtype=np.float32)
    keys[~valid] = 2.0
    chosen = np.argpartition(keys, size - 1, axis=-1)[..., :size]
    order = np.argsort(np.take_along_axis(keys, chosen, axis=-1), axis=-1)
    return np.take_along_axis(chosen, order, axis=-1)


class EpisodeSampler:
    """Draws batches of episodes as row numbers, without a Python loop over episodes, classes or images.

    They are of these `classes` (ids) of a pool, which may come without its pixels. The episodes of one batch have the
    same ways, shots and queries, drawn from `spec` and clamped to what the classes have images for, and come from one
    dataset, unless they are to be `mixed`. So many `distractors`, classes that an episode does not have, give images
    without labels, too, as far as there are others (`spare_classes` of them in the latest batch). DataError where no
    dataset has two classes of two images.
    """

    def __init__(
        self,
        pool: ImagePool,
        classes: Rows,
        spec: EpisodeSpec,
        rng: np.random.Generator,
        unlabelled_per_class: int = 0,
        *,
        mixed: bool = False,
    ) -> None:
        self._spec, self.rng, self._unlabelled = spec, rng, unlabelled_per_class
        self.distractors = self.spare_classes = 0
        self.classes = len(classes)
        labels = self._labels = pool.labels
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=int(classes.max(initial=0)) + 1)
        self._place = np.full(len(sizes), -1)
        self._place[classes] = np.arange(len(classes))
        starts = np.cumsum(sizes) - sizes
        wide = np.arange(sizes[classes].max(initial=1))
        places = np.minimum(starts[classes][:, None] + wide, len(order) - 1)
        self._sizes, self._table = sizes[classes], order[places]
        datasets = np.zeros_like(classes) if mixed else pool.dataset_of_class[classes]
        groups = [np.flatnonzero((datasets == d) & (self._sizes >= 2)) for d in np.unique(datasets)]
        self._groups = [group for group in groups if len(group) >= 2]
        if not self._groups:
            raise DataError("no dataset has two classes with two images each: no episode can be drawn")

    def draw(self, n: int) -> tuple[EpisodeBatch, torch.Tensor]:
        """`n` episodes, and the rows of their images without labels [n, (ways + distractors) * unlabelled_per_class],
        those of their own classes first."""
        group = self._groups[int(self.rng.integers(len(self._groups)))]
        ways, shots, queries, spare = self._draw_sizes(group)
        roomy = group[self._sizes[group] >= shots + queries + spare]
        self.spare_classes = min(self.distractors if spare else 0, len(roomy) - ways)
        classes = roomy[
            draw_subset(self.rng, np.ones((n, len(roomy)), dtype=bool), ways + self.spare_classes)
        ]
        valid = np.arange(self._table.shape[1]) < self._sizes[classes][..., None]
        picked = draw_subset(self.rng, valid, shots + queries + spare)
        rows = torch.from_numpy(np.take_along_axis(self._table[classes], picked, axis=-1))
        labels = torch.arange(ways).expand(n, ways)
        batch = EpisodeBatch(
            support_rows=rows[:, :ways, :shots].flatten(1),
            support_labels=labels.repeat_interleave(shots, dim=1),
            query_rows=rows[:, :ways, shots : shots + queries].flatten(1),
            query_labels=labels.repeat_interleave(queries, dim=1),
            ways=torch.full((n,), ways),
        )
        return batch, rows[..., shots + queries :].flatten(1)

    def largest(self) -> tuple[int, int, int, int]:
        """Ways, shots, queries and images without labels per class of the largest episodes that it may draw."""
        spec = self._spec
        ways = min(spec.ways[1], max(len(group) for group in self._groups))
        spare = -(-self._unlabelled * (ways + self.distractors) // ways)
        return ways, spec.shots[1], spec.queries_per_class, spare

    def number_classes(self, batch: EpisodeBatch) -> torch.Tensor:
        """For every label of drawn episodes the place of its class among those to draw from, [n, ways]."""
        rows = batch.support_rows.unflatten(1, (int(batch.ways[0]), -1))[..., 0]
        return torch.from_numpy(self._place[self._labels[rows.numpy()]])

    def _draw_sizes(self, group: Rows) -> tuple[int, int, int, int]:
        """Ways, shots, queries and images without labels per class."""
        spec, rng = self._spec, self.rng
        most = min(spec.ways[1], len(group))
        ways = int(rng.integers(min(spec.ways[0], most), most + 1))
        shots = int(rng.integers(spec.shots[0], spec.shots[1] + 1))
        room = int(np.sort(self._sizes[group])[-ways])
        queries = max(min(spec.queries_per_class, room - 1), 1)
        shots = max(min(shots, room - queries), 1)
        return ways, shots, queries, max(min(self._unlabelled, room - queries - shots), 0)


@dataclass
class PoolSource:
    """Episodes out of `inputs` [n, ...] in memory (uint8 images, or what a frozen trunk gave for them); of images
    with `variants` one is drawn each time."""

    inputs: torch.Tensor
    sampler: EpisodeSampler
    augmentation: Augmentation = NO_AUGMENTATION
    variants: Variants | None = None

    @property
    def classes(self) -> int:
        """How many classes the episodes are of."""
        return self.sampler.classes

    def state(self) -> dict[str, Any]:
        """Where the random numbers are, as JSON."""
        return dict(self.sampler.rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.sampler.rng.bit_generator.state = state

    def draw(self, n: int) -> InputEpisodes:
        """`n` episodes; images of one class of an episode are turned alike where classes are to be turned."""
        batch, unlabelled = self.sampler.draw(n)
        rows = torch.cat([batch.support_rows, batch.query_rows, unlabelled], dim=1)
        chosen = self.variants.draw(rows, self.sampler.rng) if self.variants else rows
        images = self.inputs[chosen.flatten()]
        if self.augmentation.active:
            classes = int(batch.ways[0]) + (self.sampler.spare_classes if unlabelled.shape[1] else 0)
            spare = torch.arange(classes).repeat_interleave(unlabelled.shape[1] // classes).expand(n, -1)
            labels = torch.cat([batch.support_labels, batch.query_labels, spare], dim=1)
            groups = labels + classes * torch.arange(n)[:, None]
            images = self.augmentation(images, groups.flatten().numpy(), self.sampler.rng)
        images = images.unflatten(0, rows.shape)
        s, q = batch.support_rows.shape[1], batch.query_rows.shape[1]
        return InputEpisodes(
            images[:, :s],
            batch.support_labels,
            images[:, s : s + q],
            batch.query_labels,
            batch.ways,
            images[:, s + q :] if unlabelled.shape[1] else None,
            self.sampler.number_classes(batch),
        )


class TaskSource:
    """Episodes out of the challenge's stream of tasks, each with `support_set` and `query_set` (images
    float32 in [0, 1], labels) and `num_ways`; `prepare` turns uint8 images into what the encoder takes.
    Classes are numbered as they come, by `dataset` and `original_class_idx` [ways] where tasks have these.

    DataError where the stream ends, gives something else, or has more than `STREAM_CLASSES` classes.
    """

    classes = STREAM_CLASSES

    def __init__(self, tasks: Iterable[Any], prepare: Prepare) -> None:
        self._tasks: Iterator[Any] = iter(tasks)
        self._prepare = prepare
        self._known: dict[tuple[str, int], int] = {}

    def state(self) -> dict[str, Any]:
        """The numbers of classes, as JSON; a stream itself cannot be rewound."""
        return {"classes": [list(key) for key in self._known]}

    def restore(self, state: dict[str, Any]) -> None:
        """Number classes as before."""
        self._known = {(name, int(own)): place for place, (name, own) in enumerate(state["classes"])}

    def draw(self, n: int) -> InputEpisodes:
        """The next `n` tasks."""
        return stack_episodes([self._take_task() for _ in range(n)])

    def _take_task(self) -> InputEpisodes:
        try:
            task = next(self._tasks)
        except StopIteration as error:
            raise DataError("the stream of training tasks has ended") from error
        if not hasattr(task, "support_set"):
            raise DataError(
                f"the stream gives {type(task).__name__}, not tasks: collect a pool from it instead"
            )
        support, query = (
            self._prepare(as_uint8(images))[None] for images in (task.support_set[0], task.query_set[0])
        )
        labels = [labels[None].long() for labels in (task.support_set[1], task.query_set[1])]
        ways = torch.tensor([int(task.num_ways)])
        return InputEpisodes(support, labels[0], query, labels[1], ways, classes=self._number_classes(task))

    def _number_classes(self, task: Any) -> torch.Tensor | None:
        """Numbers of the classes of a task [1, ways]; None where it does not say which they are."""
        own = getattr(task, "original_class_idx", None)
        if own is None:
            return None
        dataset = str(getattr(task, "dataset", ""))
        numbers = [self._known.setdefault((dataset, int(c)), len(self._known)) for c in own]
        if len(self._known) > STREAM_CLASSES:
            raise DataError(
                f"the stream has more than {STREAM_CLASSES} training classes; train on the pool (data: pool)"
            )
        return torch.tensor([numbers])


def stack_episodes(episodes: Sequence[InputEpisodes]) -> InputEpisodes:
    """Episodes of any ways and shots as one padded batch (without their images without labels)."""

    def pad_all(tensors: list[torch.Tensor], fill: int) -> torch.Tensor:
        flat = [row for tensor in tensors for row in tensor]
        return torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=fill)

    classes = [e.classes for e in episodes if e.classes is not None]
    return InputEpisodes(
        pad_all([e.support for e in episodes], 0),
        pad_all([e.support_labels for e in episodes], -1),
        pad_all([e.query for e in episodes], 0),
        pad_all([e.query_labels for e in episodes], -1),
        torch.cat([e.ways for e in episodes]),
        classes=pad_all(classes, -1) if len(classes) == len(episodes) else None,
    )
