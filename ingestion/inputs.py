"""What a run is given: bundle, drawn tasks, class split and datasets, read before any image is decoded."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ingestion.bundle import SubmissionConfig, open_bundle, read_config
from ingestion.class_splits import TEST, TRAIN, VALID, ClassSplit, divide_source, read_class_split
from ingestion.doubles import set_doubles_aside
from ingestion.drawn_tasks import DrawnSource, read_drawn_tasks
from ingestion.errors import InputError
from ingestion.model_file import check_model
from ingestion.settings import IngestionSettings
from ingestion.sources import Source, read_source
from ingestion.splits import Split, split_source
from ingestion.tasks import TaskDraw, draw_test_tasks

DOUBLES_SHARE = 0.05
"""Share of the time left that the search for doubles may take, but a second at least."""


@dataclass(frozen=True)
class Inputs:
    """What a run is given, before any image is decoded."""

    bundle: Path
    config: SubmissionConfig
    drawn: DrawnSource | None
    class_split: ClassSplit | None
    source: Source

    def draw(self, settings: IngestionSettings, source: Source) -> tuple[Split, list[TaskDraw]]:
        """The split and the tasks of `source`. InputError where it has too few images or classes."""
        return _draw(settings, source) if self.drawn is None else self.drawn.draw(source)


def check_inputs(settings: IngestionSettings) -> None:
    """Check every input but the content of the images, without running anything. InputError names the one that is
    wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = find_inputs(settings, Path(scratch))
        inputs.draw(settings, inputs.source)


def check_submission(settings: IngestionSettings) -> None:
    """Check the bundle alone, likewise."""
    with tempfile.TemporaryDirectory() as scratch:
        _open_bundle(settings, Path(scratch))


def find_inputs(settings: IngestionSettings, scratch: Path) -> Inputs:
    """Read them; a zip file is unpacked into `scratch`. InputError names the one that is wrong."""
    if settings.output_dir.resolve().is_relative_to(settings.input_data_dir.resolve()):
        raise InputError(
            f"output folder {settings.output_dir}: lies inside the dataset {settings.input_data_dir}, "
            "whose next run would read it; name another folder with --output"
        )
    bundle, config = _open_bundle(settings, scratch)
    drawn = read_drawn_tasks(settings.input_data_dir)
    class_split = None if settings.class_split is None else read_class_split(settings.class_split)
    return Inputs(bundle, config, drawn, class_split, _find_source(settings, config, drawn, class_split))


def _open_bundle(settings: IngestionSettings, scratch: Path) -> tuple[Path, SubmissionConfig]:
    budget_s = settings.time_budget_s
    deadline = math.inf if budget_s is None else settings.started + budget_s
    bundle = open_bundle(settings.submission, scratch, deadline)
    config = read_config(bundle)
    check_model(bundle)
    return bundle, config


def _find_source(
    settings: IngestionSettings,
    config: SubmissionConfig,
    drawn: DrawnSource | None,
    class_split: ClassSplit | None,
) -> Source:
    """The datasets of a run; those of drawn tasks as they are, others with each image once. Where a class split
    divides them, classes for validation are there only if the bundle asks for some."""
    if drawn is not None:
        if class_split is not None:
            raise InputError(
                f"class split {settings.class_split}: the tasks in {settings.input_data_dir} were drawn before; "
                "leave it out"
            )
        return drawn.source
    source = read_source(settings.input_data_dir)
    if class_split is not None:
        validates = bool(config.validation_datasets)
        source = divide_source(source, class_split, (TRAIN, VALID, TEST) if validates else (TRAIN, TEST))
    return _without_doubles(source, settings)


def _without_doubles(source: Source, settings: IngestionSettings) -> Source:
    """The source with each image once, as far as there is time to compare them."""
    if settings.time_budget_s is None:
        return set_doubles_aside(source)
    now = time.monotonic()
    latest = now + max(DOUBLES_SHARE * (settings.started + settings.time_budget_s - now), 1.0)
    return set_doubles_aside(source, lambda: time.monotonic() > latest)


def _draw(settings: IngestionSettings, source: Source) -> tuple[Split, list[TaskDraw]]:
    split = split_source(
        source,
        settings.test_config,
        protocol=settings.protocol,
        seed=settings.seed,
        auto_queries=settings.query_images_per_class is None,
    )
    tasks = draw_test_tasks(split.test, split.test_config, settings.test_tasks_per_dataset, settings.seed)
    return split, list(tasks)
