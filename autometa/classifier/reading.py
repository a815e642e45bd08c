"""The labelled images that `autometa fit` learns from, as many as there is time for, prepared alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autometa.classifier.notes import Note, Report, report_notes, tell_classes, tell_lost
from autometa.classifier.options import FitOptions
from autometa.classifier.shape_choice import choose_shape_of_datasets
from autometa.core.budget import TimeBudget
from autometa.data.images import ImagePool, take_share_of_each_class
from ingestion import Preparation
from ingestion.class_splits import TRAIN, VALID, divide_source, read_class_split
from ingestion.datasets import Dataset
from ingestion.decoding import FEW_IMAGES, measure_pace
from ingestion.doubles import set_doubles_aside
from ingestion.image_size import choose_image_size
from ingestion.images import DecodedDataset, decode_dataset, default_cache_dir, is_decoded
from ingestion.sources import Source, read_source, summarise
from ingestion.survey import choose_preparation

QUERIES, MOST_WAYS, MOST_SHOTS = 5, 20, 20
"""Of the episodes by which the search judges."""
DOUBLES_SHARE, SHAPE_SHARE, DECODING_SHARE = 0.05, 0.1, 0.4
"""Of the time left: what comparing images may take, to find those that are there twice, what trying how they become
square may, and what decoding may."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReadImages:
    """The images to learn from, with the names of their classes, and how they were prepared; `held_out`: those that a
    class split has for validation, None where there are none."""

    pool: ImagePool
    class_names: list[str]
    preparation: Preparation
    held_out: ImagePool | None


def read_images(
    dataset: Path, options: FitOptions, budget: TimeBudget, report: Report, on_progress: Progress
) -> ReadImages:
    """The images under a folder, as many as there is time for, prepared alike. What was odd is reported. InputError
    names the folder, or the class split, that is wrong, and the fix."""
    comparing = budget.share(DOUBLES_SHARE)
    found, held_names = _find_source(dataset, options.class_split)
    source = set_doubles_aside(found, lambda: comparing.left_s() <= 0)
    datasets = list(source.datasets.values())
    learned = [each for each in datasets if each.name not in held_names]
    tell_classes(dataset, learned, report)
    report_notes(source.notes, report)
    preparation = _choose_preparation(source, learned, options, budget, report)
    decoded = []
    share = _affordable_share(datasets, preparation, budget, report)
    for whole in datasets:
        each = whole
        if share < 1:
            rows = take_share_of_each_class(whole.labels, share, np.random.default_rng(options.seed))
            each = whole.without(np.setdiff1d(np.arange(len(whole.files)), rows).tolist())
        decoded.append(decode_dataset(each, preparation, default_cache_dir(), on_progress))
        report_notes((f"set aside: {line}" for line in decoded[-1].broken), report)
    tell_lost(found, {each.dataset.name: each.dataset.class_names for each in decoded}, report)
    ours = [each for each in decoded if each.dataset.name not in held_names]
    theirs = [each for each in decoded if each.dataset.name in held_names]
    return ReadImages(_join(ours), _class_names(ours), preparation, _join(theirs) if theirs else None)


def _find_source(dataset: Path, class_split: Path | None) -> tuple[Source, tuple[str, ...]]:
    """The datasets of a folder, and the names of those whose classes are only for validation. Without a class split
    these are none: all classes are learned from, whatever the folders are called."""
    if class_split is None:
        return read_source(dataset), ()
    source = divide_source(read_source(dataset), read_class_split(class_split), (TRAIN, VALID))
    return source, source.roles.valid if source.roles else ()


def _choose_preparation(
    source: Source, learned: Sequence[Dataset], options: FitOptions, budget: TimeBudget, report: Report
) -> Preparation:
    """How the images are prepared: as the options say, else as suits those that are learned from."""
    px = options.image_size
    if px == "auto":
        px = choose_image_size(source, MOST_WAYS * (QUERIES + MOST_SHOTS), options.memory_budget)
    preparation, lines = choose_preparation(list(source.datasets.values()), px)
    about: list[str] = []
    if options.image_shape == "auto" and not source.is_metadl_root:
        trying = budget.share(SHAPE_SHARE)
        preparation, about = choose_shape_of_datasets(learned, preparation, options.wanted, trying)
    elif options.image_shape != "auto":
        preparation = replace(preparation, shape=options.image_shape)
    for line in summarise([*lines, *about]):
        report(line)
    return preparation


def _affordable_share(
    datasets: Sequence[Dataset], preparation: Preparation, budget: TimeBudget, report: Report
) -> float:
    """The share of the images that there is time to decode; 1 where the cache has them."""
    files = [file for each in datasets for file in each.files]
    if len(files) <= FEW_IMAGES:
        return 1.0
    pace, allowed_s = (
        measure_pace(dict.fromkeys(files, preparation)),
        DECODING_SHARE * max(budget.left_s(), 0.0),
    )
    whole_s = pace.decoding_s(len(files))
    if whole_s <= allowed_s:
        return 1.0
    if 2 * pace.key_s(len(files)) <= allowed_s:
        cache = default_cache_dir()
        if all(is_decoded(each, preparation, cache) for each in datasets):
            return 1.0
    share = allowed_s / whole_s
    told = (
        f"decoding {len(files):,} images would take {whole_s:.0f} s of the {budget.left_s():.0f} s left: "
        f"{share:.0%} of each class are learned from; a longer --time-budget takes more"
    )
    report(Note(told))
    return share


def _join(decoded: Sequence[DecodedDataset]) -> ImagePool:
    """The images of all datasets; those of one stay where they are, in a mapped file."""
    labels, dataset_of_class, first = [], [], 0
    for number, each in enumerate(decoded):
        labels.append(each.dataset.labels + first)
        dataset_of_class += [number] * len(each.dataset.class_names)
        first += len(each.dataset.class_names)
    images = decoded[0].images if len(decoded) == 1 else np.concatenate([each.images for each in decoded])
    names = tuple(each.dataset.name for each in decoded)
    return ImagePool(images, np.concatenate(labels), np.array(dataset_of_class), names)


def _class_names(decoded: Sequence[DecodedDataset]) -> list[str]:
    """Names of all classes, with that of their dataset where there are several."""
    several = len(decoded) > 1
    return [
        f"{each.dataset.name}/{name}" if several else name
        for each in decoded
        for name in each.dataset.class_names
    ]
