"""Tasks that were drawn before: what a competition gives its ingestion program, without any query label.

The folder holds `tasks.json` and images. `datasets` lists, for each dataset, images with their class (those of
meta-train and of supports) and without (those of queries); no image of a query has a class anywhere. `tasks` names
images by their position in the list of their dataset. The truth is with the scoring program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingestion.datasets import Dataset, dataset_from_names
from ingestion.errors import InputError
from ingestion.sources import Source
from ingestion.splits import Part, Split
from ingestion.tasks import Rows, TaskConfig, TaskDraw

FILE = "tasks.json"
UNKNOWN = -1
"""Stands for every query label."""
QUERIES = "(queries)"
"""Stands for the class of images that only queries show."""

Place = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=500)]


class DrawnImage(BaseModel):
    """An image of a dataset: its path within the folder, and its class, None for a query. `train`: it is there to
    learn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Name
    label: Name | None
    train: bool

    @model_validator(mode="after")
    def _is_inside(self) -> Self:
        if Path(self.file).is_absolute() or ".." in Path(self.file).parts:
            raise ValueError(f"{self.file} lies outside the folder")
        if self.train and self.label is None:
            raise ValueError(f"{self.file} is there to learn from, so it needs a label")
        return self


class DrawnDataset(BaseModel):
    """One dataset, of meta-train, of meta-test, or with classes of both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    images: Annotated[list[DrawnImage], Field(min_length=1)]


class DrawnTask(BaseModel):
    """One task. `support`, `support_labels` [ways * shots] and `query` [ways * queries]: images by their place in
    `datasets[dataset].images`, labels 0..ways-1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Place
    ways: Annotated[int, Field(ge=2)]
    shots: Annotated[int, Field(ge=1)]
    support: Annotated[list[Place], Field(min_length=1)]
    support_labels: list[Place]
    query: Annotated[list[Place], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.support) != len(self.support_labels):
            raise ValueError(f"{len(self.support)} support images, but {len(self.support_labels)} labels")
        if set(self.support_labels) != set(range(self.ways)):
            raise ValueError(f"support_labels are not 0..{self.ways - 1}")
        return self


class DrawnTasks(BaseModel):
    """The whole of `tasks.json`. `test_config` bounds ways and shots of the tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-tasks-1"] = "autometa-tasks-1"
    protocol: Literal["within-domain", "cross-domain"]
    test_config: TaskConfig
    datasets: Annotated[list[DrawnDataset], Field(min_length=1)]
    tasks: Annotated[list[DrawnTask], Field(min_length=1)]

    @model_validator(mode="after")
    def _tasks_name_images(self) -> Self:
        for number, task in enumerate(self.tasks, start=1):
            if task.dataset >= len(self.datasets):
                raise ValueError(f"task {number}: there is no dataset {task.dataset}")
            images = self.datasets[task.dataset].images
            if max(*task.support, *task.query) >= len(images):
                raise ValueError(f"task {number}: names an image that {FILE} does not list")
            if any(images[place].label is not None for place in task.query):
                raise ValueError(f"task {number}: the label of a query image is given")
            if any(images[place].label is None for place in task.support):
                raise ValueError(f"task {number}: a support image has no label")
        return self


@dataclass(frozen=True)
class DrawnSource:
    """The folder as the rest of ingestion sees it. Query labels are all `UNKNOWN`."""

    folder: Path
    content: DrawnTasks

    @cached_property
    def source(self) -> Source:
        """The datasets, meta-train and meta-test together."""
        return Source({d.name: self._dataset(d) for d in self.content.datasets})

    def draw(self, source: Source) -> tuple[Split, list[TaskDraw]]:
        """The split and the tasks as they were drawn. InputError where `source` lacks an image of a task, since it
        cannot be read."""
        train, test = [], []
        places: dict[int, dict[str, int]] = {}
        tested = sorted({task.dataset for task in self.content.tasks})
        for number, drawn in enumerate(self.content.datasets):
            dataset = source.datasets[drawn.name]
            used = {str(self.folder / image.file): image.train for image in drawn.images}
            learns = np.array([used[str(file)] for file in dataset.files])
            if learns.any():
                train.append(Part(dataset, np.flatnonzero(learns)))
            if number in tested:
                part = Part(dataset, np.flatnonzero(~learns))
                test.append(part)
                files = [str(dataset.files[row].relative_to(self.folder)) for row in part.rows]
                places[number] = {file: row for row, file in enumerate(files)}
        config = self.content.test_config
        split = Split(self.content.protocol, tuple(train), tuple(test), config, ())
        return split, [
            self._task(number, task, places[task.dataset], tested.index(task.dataset))
            for number, task in enumerate(self.content.tasks, start=1)
        ]

    def _dataset(self, drawn: DrawnDataset) -> Dataset:
        files = [self.folder / image.file for image in drawn.images]
        return dataset_from_names(drawn.name, files, [image.label or QUERIES for image in drawn.images])

    def _task(self, number: int, task: DrawnTask, places: dict[str, int], dataset: int) -> TaskDraw:
        images = self.content.datasets[task.dataset].images

        def rows(chosen: list[int]) -> Rows:
            files = [images[place].file for place in chosen]
            if missing := [file for file in files if file not in places]:
                raise InputError(
                    f"{self.folder / missing[0]}: cannot be read, but task {number} needs it; make the "
                    "competition again from sound images"
                )
            return np.array([places[file] for file in files], dtype=np.int64)

        return TaskDraw(
            dataset=dataset,
            ways=task.ways,
            shots=task.shots,
            classes=np.arange(task.ways),
            support_rows=rows(task.support),
            support_labels=np.array(task.support_labels, dtype=np.int64),
            query_rows=rows(task.query),
            query_labels=np.full(len(task.query), UNKNOWN, dtype=np.int64),
        )


def read_drawn_tasks(folder: Path) -> DrawnSource | None:
    """The tasks in a folder; None where it has no `tasks.json`. InputError names the entry that is wrong."""
    file = folder.resolve() / FILE
    if not file.is_file():
        return None
    try:
        return DrawnSource(file.parent, DrawnTasks.model_validate_json(file.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{file}: {where}: {first['msg']}") from error
