"""Axes of the data: images, classes and datasets, made up, with random features in place of networks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _scaling_fit import Costs

from autometa.core.budget import UNLIMITED, MemoryBudget
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, hash_images, take_share_of_each_class
from autometa.data.pool import collect_pool
from autometa.data.splits import split_datasets
from autometa.data.test_spec import TestSpec
from autometa.evaluation.folds import draw_folds
from autometa.heads.class_statistics import ClassStatistics
from ingestion.datasets import Dataset
from ingestion.doubles import set_doubles_aside
from ingestion.generators import TrainingSet
from ingestion.images import decode_dataset
from ingestion.loose_images import encode_thumbnail
from ingestion.sources import Source, read_source
from ingestion.splits import split_source
from ingestion.survey import choose_preparations
from ingestion.tasks import TaskConfig, draw_test_tasks, draw_train_tasks

PX, WIDTH, SEED = 8, 64, 98
METRIC = "root_white_prior"
SPEC = EpisodeSpec((2, 20), (1, 10), 5)
CONFIG = TaskConfig(max_k=10, query_images_per_class=5)
TASKS, TRAIN_TASKS, EPISODES, FOLDS = 60, 60, 80, 5
MEMORY = MemoryBudget(2**40)
REPEATS = 3
NO_FILE = Path("image.jpg")


@dataclass
class Generator:
    """What a submission is given by ingestion."""

    image_sets: tuple[TrainingSet, ...]


def labels_of(images: int, classes: int) -> np.ndarray:
    """Labels of images that are as many in each class, about, in random order."""
    return np.random.default_rng(SEED).permutation(np.arange(images) % classes)


def make_sets(images: int, classes: int, datasets: int) -> tuple[TrainingSet, ...]:
    """Made-up datasets that have so many images and classes together."""
    rng = np.random.default_rng(SEED)
    each, own = images // datasets, classes // datasets
    return tuple(
        TrainingSet(f"set {d}", rng.integers(0, 256, (each, 3, PX, PX), np.uint8), labels_of(each, own))
        for d in range(datasets)
    )


def measure_pool(
    costs: Costs, size: int, images: int, classes: int, datasets: int, width: int = WIDTH
) -> None:
    """All that looks at every image, class or dataset between decoded arrays and the answers to episodes."""
    sets = make_sets(images, classes, datasets)
    _measure_ingestion(costs, size, sets)
    with costs.of("pool", size):
        pool = collect_pool(Generator(sets), UNLIMITED, MEMORY, lambda _: None)
    rng = np.random.default_rng(SEED)
    with costs.of("share", size):
        rows = take_share_of_each_class(pool.labels, 0.5, rng)
    part = ImagePool(pool.images[rows], pool.labels[rows], pool.dataset_of_class, pool.datasets)
    with costs.of("hashes", size):
        hash_images(part.images)
    for protocol in ("within-domain", "cross-domain"):
        test = TestSpec(TASKS, SPEC, None, protocol)
        with costs.of(f"folds {protocol}", size):
            draw_folds(part, test, FOLDS, EPISODES, rng)
    with costs.of("episodes", size):
        fit, held = split_datasets(part, 0.5, rng)
        sample_episodes(part, np.concatenate([fit, held]), SPEC, EPISODES, rng)
    features = torch.randn(len(rows), width, generator=torch.Generator().manual_seed(SEED)).abs_()
    with costs.of("statistics", size):
        statistics = ClassStatistics()
        statistics.add(features, torch.from_numpy(part.labels), 0, ["root"])
        statistics.fit(METRIC)


def _measure_ingestion(costs: Costs, size: int, sets: Sequence[TrainingSet]) -> None:
    """Splitting and drawing, of what is listed, without files."""
    datasets = {
        s.name: Dataset(s.name, (NO_FILE,) * len(s.labels), s.labels, tuple(map(str, range(s.classes))))
        for s in sets
    }
    with costs.of("split", size):
        split = split_source(Source(datasets), CONFIG, protocol="within-domain", seed=SEED)
    with costs.of("draws", size):
        list(draw_test_tasks(split.test[:1], split.test_config, TASKS, SEED))
        list(draw_train_tasks(sets, CONFIG, TRAIN_TASKS, SEED))


def measure_images(costs: Costs, sizes: tuple[int, ...]) -> None:
    """The number of images, in 100 classes of 4 datasets."""
    for size in REPEATS * sizes:
        measure_pool(costs, size, size, 100, 4)


def measure_classes(costs: Costs, sizes: tuple[int, ...]) -> None:
    """The number of classes, of 20 images each, in 2 datasets."""
    for size in REPEATS * sizes:
        measure_pool(costs, size, 20 * size, size, 2)


def measure_datasets(costs: Costs, sizes: tuple[int, ...]) -> None:
    """The number of datasets, of 20 classes of 40 images each."""
    for size in REPEATS * sizes:
        measure_pool(costs, size, 800 * size, 20 * size, size)


def measure_files(costs: Costs, sizes: tuple[int, ...]) -> None:
    """The number of image files: listing, looking for doubles, the survey of headers, decoding, and mapping what was
    decoded."""
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="scaling-") as scratch:
            folder = write_files(Path(scratch) / "images", size)
            with costs.of("read", size):
                source = read_source(folder)
            with costs.of("doubles", size):
                source = set_doubles_aside(source)
            with costs.of("survey", size):
                choose_preparations(source, PX)
            (dataset,) = source.datasets.values()
            for part in ("decode", "map"):
                with costs.of(part, size):
                    decode_dataset(dataset, PX, Path(scratch) / "cache")


def write_files(folder: Path, images: int, classes: int = 50) -> Path:
    """A folder with a subfolder of small JPEG files for each class, no two alike."""
    rng = np.random.default_rng(SEED)
    jpeg = [encode_thumbnail(rng.integers(0, 256, (3, PX, PX), np.uint8), PX) for _ in range(classes)]
    for label, content in enumerate(jpeg):
        own = folder / f"class {label:03}"
        own.mkdir(parents=True)
        for number in range(images // classes):
            (own / f"{number:06}.jpg").write_bytes(content + f"{number:08}".encode())
    return folder
