"""The tasks of a competition, drawn beforehand: what the ingestion program gets, and the truth apart from it.

The images of each test class are dealt into two halves, one for supports and one for queries, so that no query image
is ever shown with a label, in no task. Names of images and classes of meta-test tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autometa.bundles.errors import BundleError
from ingestion.drawn_tasks import DrawnDataset, DrawnImage, DrawnTask, DrawnTasks
from ingestion.outputs import TRUTH_FORMAT
from ingestion.sources import Source
from ingestion.splits import Part, Split
from ingestion.survey import find_broken
from ingestion.tasks import Rows, TaskConfig


@dataclass(frozen=True)
class Drawn:
    """`content` and `files` (name in the folder → where it lies) are input data, `truth` is reference data."""

    content: DrawnTasks
    files: dict[str, Path]
    truth: dict[str, Any]


def sound_source(source: Source) -> tuple[Source, list[str]]:
    """The source without images that cannot be read, and a line for each of these."""
    lines: list[str] = []
    datasets = {}
    for name, dataset in source.datasets.items():
        broken = find_broken(dataset)
        lines += [f"{dataset.files[row]}: left out, {reason}" for row, reason in broken.items()]
        if len(broken) == len(dataset.files):
            raise BundleError(f"{name}: none of its {len(broken)} images can be read; leave the dataset out")
        datasets[name] = dataset.without(broken) if broken else dataset
    return replace(source, datasets=datasets), lines


def draw_competition(split: Split, tasks_per_dataset: int, seed: int, *, phase: int = 0) -> Drawn:
    """Draw the tasks of one phase. All phases of a seed deal the images alike: what is a query in one is never shown
    with a label in another. BundleError where a dataset is in meta-train and in meta-test as a whole."""
    dealing, rng = np.random.default_rng(seed), np.random.default_rng([seed, phase])
    names = list(dict.fromkeys(part.name for part in (*split.train, *split.test)))
    desks = {name: _Desk(number, name) for number, name in enumerate(names)}
    for part in split.train:
        desks[part.name].add_train(part)
    pools = [desks[part.name].add_test(part, split.test_config, dealing) for part in split.test]
    drawn = [_draw(pool, split.test_config, rng) for pool in pools for _ in range(tasks_per_dataset)]
    config = _exact(split.test_config, [task for task, _ in drawn])
    content = DrawnTasks(
        protocol="cross-domain" if split.protocol == "cross-domain" else "within-domain",
        test_config=config,
        datasets=[desk.described() for desk in desks.values()],
        tasks=[task for task, _ in drawn],
    )
    truth = [
        {"task": n, "dataset": names[task.dataset], "ways": task.ways, "shots": task.shots, "labels": labels}
        for n, (task, labels) in enumerate(drawn, start=1)
    ]
    tested = [part.name for part in split.test]
    files = {name: path for desk in desks.values() for name, path in desk.files.items()}
    return Drawn(content, files, {"format": TRUTH_FORMAT, "seed": seed, "datasets": tested, "tasks": truth})


@dataclass(frozen=True)
class _Pool:
    """Places of a dataset's images, for each test class: those of supports and those of queries."""

    dataset: int
    support: list[Rows]
    query: list[Rows]


@dataclass
class _Desk:
    """Collects the images of one dataset."""

    number: int
    name: str
    images: list[DrawnImage] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    sources: set[Path] = field(default_factory=set)

    def add_train(self, part: Part) -> None:
        """All images of a part, to learn from."""
        for row, label in zip(part.rows, part.labels, strict=True):
            source = part.dataset.files[row]
            name = f"train/{self.number}/{len(self.images):06}{source.suffix.lower()}"
            self._add(source, DrawnImage(file=name, label=part.class_names[label], train=True))

    def add_test(self, part: Part, config: TaskConfig, rng: np.random.Generator) -> _Pool:
        """All images of a part, in an order that tells nothing, dealt into supports and queries."""
        if self.sources & {part.dataset.files[row] for row in part.rows}:
            raise BundleError(
                f"{self.name}: is in meta-train and in meta-test; a competition needs them apart"
            )
        dealt = [_deal(rows, config.query_images_per_class, rng) for rows in part.rows_of_class]
        labels: dict[int, str] = {
            row: f"test class {number}"
            for number, (support, _) in enumerate(dealt)
            for row in support.tolist()
        }
        start, place = len(self.images), {}
        for row in rng.permutation(len(part.rows)).tolist():
            source = part.dataset.files[part.rows[row]]
            place[row] = len(self.images)
            name = f"test/{self.number}/{len(self.images) - start:06}{source.suffix.lower()}"
            self._add(source, DrawnImage(file=name, label=labels.get(row), train=False))
        supports, queries = (
            [np.array([place[row] for row in pair[side].tolist()], dtype=np.int64) for pair in dealt]
            for side in (0, 1)
        )
        return _Pool(self.number, supports, queries)

    def described(self) -> DrawnDataset:
        """The entry of this dataset."""
        return DrawnDataset(name=self.name, images=self.images)

    def _add(self, source: Path, image: DrawnImage) -> None:
        self.images.append(image)
        self.files[image.file] = source
        self.sources.add(source)


def _deal(rows: Rows, queries: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Images of one class for supports and for queries: half of them, or as many as a task needs."""
    order = rng.permutation(rows)
    kept = min(max(queries, len(order) // 2), len(order) - 1)
    return order[kept:], order[:kept]


def _draw(pool: _Pool, config: TaskConfig, rng: np.random.Generator) -> tuple[DrawnTask, list[int]]:
    """One task and its query labels; ways and shots are drawn evenly from what the classes allow."""
    assert config.min_N and config.max_N and config.min_k and config.max_k
    most_ways = min(config.max_N, len(pool.support))
    ways = int(rng.integers(min(config.min_N, most_ways), most_ways + 1))
    most_shots = min(config.max_k, *map(len, pool.support))
    shots = int(rng.integers(min(config.min_k, most_shots), most_shots + 1))
    queries = min(config.query_images_per_class, *map(len, pool.query))
    classes = rng.permutation(len(pool.support))[:ways]
    support, support_labels = _pick(pool.support, classes, shots, rng)
    query, labels = _pick(pool.query, classes, queries, rng)
    task = DrawnTask(
        dataset=pool.dataset, ways=ways, shots=shots, support=support, support_labels=support_labels, query=query
    )  # fmt: skip
    return task, labels


def _pick(
    images: list[Rows], classes: Rows, each: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """So many images of each class, with labels 0, 1, …, shuffled."""
    places = np.concatenate([rng.choice(images[c], each, replace=False) for c in classes])
    order = rng.permutation(len(places))
    return places[order].tolist(), np.repeat(np.arange(len(classes)), each)[order].tolist()


def _exact(config: TaskConfig, tasks: list[DrawnTask]) -> TaskConfig:
    """The bounds that hold for these tasks."""
    ways, shots = [task.ways for task in tasks], [task.shots for task in tasks]
    bounds = {"min_N": min(ways), "max_N": max(ways), "min_k": min(shots), "max_k": max(shots)}
    return config.model_copy(update=bounds)


def contents(drawn: Drawn) -> Iterator[tuple[str, bytes | Path]]:
    """The input data, by name."""
    yield "tasks.json", drawn.content.model_dump_json().encode()
    yield from drawn.files.items()
