"""Everything that a run needs before the submission starts: bundle, images, split, tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingestion.bundle import SubmissionConfig
from ingestion.class_splits import ClassSplit
from ingestion.contract import TestSpec, wants_standby
from ingestion.decoding import decode_source
from ingestion.errors import InputError
from ingestion.image_size import FORMAT_PX, choose_image_size
from ingestion.images import DecodedDataset, user_cache_dir
from ingestion.inputs import find_inputs
from ingestion.preparation import Preparation, common_preparation
from ingestion.settings import Event, IngestionSettings, OnEvent
from ingestion.sources import Source, summarise
from ingestion.splits import Part, Split
from ingestion.survey import choose_preparations
from ingestion.tasks import TaskDraw

VALIDATION_CLASSES = 0.25
"""Share of the classes for validation if a bundle asks for validation datasets and there is only one dataset."""
MOST_SET_ASIDE = 12
"""Lines about classes that are left out."""


@dataclass(frozen=True)
class Prepared:
    """The inputs of meta-train and meta-test. `train` and `valid` follow the bundle's `config.json`. `preparation`:
    how images are prepared that a learner of this run is given later. `drawn_before`: the tasks came with the data,
    which have no query label. `isolated`: each task has a process of its own. `class_split`: the one that was asked
    for."""

    bundle: Path
    config: SubmissionConfig
    images: dict[str, DecodedDataset]
    split: Split
    train: tuple[Part, ...]
    valid: tuple[Part, ...]
    draws: tuple[TaskDraw, ...]
    px: int
    preparation: Preparation
    seed: int
    standby: bool
    decode_s: float
    drawn_before: bool = False
    isolated: bool = False
    class_split: ClassSplit | None = None

    @property
    def test_spec(self) -> TestSpec:
        """The declared meta-test, as the submission sees it."""
        config = self.split.test_config
        assert config.min_N and config.max_N and config.min_k and config.max_k
        most_ways, most_shots = config.max_N, config.max_k
        if not self.drawn_before:
            most_ways = min(most_ways, max(len(p.class_names) for p in self.split.test))
            room = max(min(map(len, p.rows_of_class)) for p in self.split.test)
            most_shots = max(min(most_shots, room - config.query_images_per_class), 1)
        return TestSpec(
            tasks=len(self.draws),
            datasets=len(self.split.test),
            images=sum(len(p.rows) for p in self.split.test),
            drawn_images=sum(d.support_rows.size + d.query_rows.size for d in self.draws),
            ways=(min(config.min_N, most_ways), most_ways),
            shots=(min(config.min_k, most_shots), most_shots),
            queries_per_class=config.query_images_per_class,
            px=self.px,
            protocol=self.split.protocol,
            standby=self.standby,
            isolated=self.isolated,
        )

    def task_images(
        self, draw: TaskDraw, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The image array of the dataset of a task, and the rows of this array for `rows` of the part."""
        part = self.split.test[draw.dataset]
        return self.images[part.name].images, part.rows[rows]


def prepare(settings: IngestionSettings, scratch: Path, on_event: OnEvent) -> Prepared:
    """Read and check every input. InputError names the one that is wrong."""
    user_cache_dir()  # weights are looked for there, too
    inputs = find_inputs(settings, scratch)
    px = _image_size(inputs.source, settings, on_event)
    source = choose_preparations(inputs.source, px, settings.image_shape)
    for line in summarise(source.notes):
        on_event(Event("note", line))
    settings = settings.model_copy(update={"image_size": px})
    decoded = decode_source(source, settings, partial(inputs.draw, settings), scratch, on_event)
    split = decoded.split
    for line in _told_of_split(split, settings):
        on_event(Event("note", line))
    train, valid = _validation(split, inputs.config, settings.seed, on_event)
    return Prepared(
        bundle=inputs.bundle,
        config=inputs.config,
        images=decoded.images,
        split=split,
        train=train,
        valid=valid,
        draws=tuple(decoded.draws),
        px=px,
        preparation=common_preparation(px, [source.preparation(name, px) for name in source.datasets]),
        seed=settings.seed,
        standby=not settings.isolate_tasks
        and wants_standby(settings.time_budget_s, settings.memory_budget_bytes),
        isolated=settings.isolate_tasks,
        decode_s=decoded.seconds,
        drawn_before=inputs.drawn is not None,
        class_split=inputs.class_split,
    )


def _told_of_split(split: Split, settings: IngestionSettings) -> list[str]:
    """What was left out, and which ranges that were asked for the data do not have."""
    aside = [f"set aside: {line}" for line in split.set_aside]
    if len(aside) > MOST_SET_ASIDE:
        more = len(aside) - MOST_SET_ASIDE + 1
        aside = [*aside[: MOST_SET_ASIDE - 1], f"set aside: {more} more, all named in the record of the run"]
    return aside + _told_of_ranges(split, settings)


def _told_of_ranges(split: Split, settings: IngestionSettings) -> list[str]:
    """A line where --ways or --shots ask for more than there is. The usual ranges are a limit, not a wish."""
    usual = {name: IngestionSettings.model_fields[name].default for name in ("ways", "shots")}
    queries = split.test_config.query_images_per_class
    lines = []
    for part in split.test:
        classes, smallest = len(part.class_names), min(map(len, part.rows_of_class))
        shots = max(smallest - min(queries, max(smallest - 1, 1)), 1)
        for name, (low, high), most, there in (
            ("ways", settings.ways, classes, f"{classes} classes for meta-test"),
            (
                "shots",
                settings.shots,
                shots,
                f"{smallest} images in its smallest class, {queries} of them queries",
            ),
        ):
            if most < low or (most < high and (low, high) != usual[name]):
                lines.append(
                    f"--{name} {low}-{high} is more than {part.name} has ({there}): its tasks have {most} at most"
                )
    return lines


def _image_size(source: Source, settings: IngestionSettings, on_event: OnEvent) -> int:
    """The size that is asked for, else one that suits the images."""
    if settings.image_size != "auto":
        return settings.image_size
    test = settings.test_config
    assert test.max_N and test.max_k
    task_images = test.max_N * max(test.max_k, test.query_images_per_class)
    px = choose_image_size(source, task_images, settings.memory_budget_bytes)
    if px != FORMAT_PX:
        on_event(
            Event(
                "note", f"images are prepared at {px} px, which suits their size; --image-size sets another"
            )
        )
    return px


def _validation(
    split: Split, config: SubmissionConfig, seed: int, on_event: OnEvent
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Whole datasets for validation, as config.json of the bundle asks; fewer if there are too few. Where the data
    say which, those."""
    asked, parts = config.validation_datasets, split.train
    if not asked:
        return parts, ()
    if split.valid_names:
        held = [part.name in split.valid_names for part in parts]
        return (
            tuple(part for part, valid in zip(parts, held, strict=True) if not valid),
            tuple(part for part, valid in zip(parts, held, strict=True) if valid),
        )
    if len(parts) == 1:
        on_event(Event("note", "one meta-train dataset only: a quarter of its classes is for validation"))
        return _hold_out_classes(parts[0], seed)
    n_valid = min(asked, len(parts) - 1)
    if n_valid < asked:
        on_event(Event("note", f"validation_datasets = {asked}: only {n_valid} available here"))
    order = list(range(len(parts)))
    np.random.RandomState(seed).shuffle(order)
    return tuple(parts[i] for i in order[n_valid:]), tuple(parts[i] for i in order[:n_valid])


def _hold_out_classes(part: Part, seed: int) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    classes = len(part.class_names)
    n_valid = max(round(VALIDATION_CLASSES * classes), 2)
    if classes - n_valid < 2:
        raise InputError(
            f"config.json: validation_datasets needs more meta-train classes than {classes}; set it to null"
        )
    held = np.isin(part.labels, np.random.RandomState(seed).permutation(classes)[:n_valid])
    return (Part(part.dataset, part.rows[~held]),), (Part(part.dataset, part.rows[held]),)
