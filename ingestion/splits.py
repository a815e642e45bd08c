"""Which datasets and classes are for meta-training and which for meta-test.

`--dataset DIR` may be a MetaDL root (`info/meta_splits.txt`), a folder of Meta-Album datasets, one
Meta-Album dataset, or one folder with a subfolder of images per class.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ingestion.datasets import (
    Dataset,
    is_meta_album,
    read_class_folders,
    read_json,
    read_meta_album,
    visible_folders,
)
from ingestion.errors import InputError
from ingestion.tasks import Rows, TaskConfig

Protocol = Literal["auto", "within-domain", "cross-domain"]

TRAIN_CLASSES = 0.6
"""Share of a dataset's classes that goes to meta-training in the within-domain protocol."""
CLASSES_KEPT = 0.8
"""Small classes are left out, so that others can have more shots, only while this share of the classes is kept."""
MOST_QUERIES = 20


@dataclass(frozen=True)
class Source:
    """Datasets found under the input folder; the two lists are None if there is no splits file."""

    datasets: dict[str, Dataset]
    train_names: tuple[str, ...] | None = None
    test_names: tuple[str, ...] | None = None

    @property
    def is_metadl_root(self) -> bool:
        """Whether a splits file fixes meta-train and meta-test."""
        return self.test_names is not None


@dataclass(frozen=True)
class Part:
    """Some classes of a dataset. Row i of the part is row `rows[i]` of `dataset`; class ids start at 0 in
    order of first appearance among these rows."""

    dataset: Dataset
    rows: Rows
    labels: Rows = field(init=False)
    class_names: tuple[str, ...] = field(init=False)
    rows_of_class: tuple[Rows, ...] = field(init=False)

    def __post_init__(self) -> None:
        old = self.dataset.labels[self.rows]
        ids, first = np.unique(old, return_index=True)
        ids = ids[np.argsort(first)]
        new_id = np.zeros(len(self.dataset.class_names), dtype=np.int64)
        new_id[ids] = np.arange(len(ids))
        labels = new_id[old]
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", tuple(self.dataset.class_names[i] for i in ids))
        object.__setattr__(self, "rows_of_class", tuple(np.flatnonzero(labels == i) for i in range(len(ids))))

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.dataset.name


@dataclass(frozen=True)
class Split:
    """Parts for meta-training, for its validation (whole datasets, cross-domain format only) and for
    meta-test, the task configuration of meta-test, and what was left out and why."""

    protocol: str
    train: tuple[Part, ...]
    test: tuple[Part, ...]
    test_config: TaskConfig
    set_aside: tuple[str, ...]


def read_source(folder: Path) -> Source:
    """Find the datasets under `folder`; InputError says what was looked for and what is there."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(f"dataset folder {folder}: does not exist or is not a folder")
    if (folder / "info" / "meta_splits.txt").is_file():
        return _read_metadl_root(folder)
    if is_meta_album(folder):
        return Source({folder.name: read_meta_album(folder)})
    subfolders = visible_folders(folder)
    albums = [f for f in subfolders if is_meta_album(f)]
    if albums:
        return Source({f.name: read_meta_album(f) for f in albums})
    if not subfolders:
        raise InputError(
            f"dataset folder {folder}: holds neither info/meta_splits.txt, nor labels.csv, nor subfolders; "
            "give a MetaDL root, Meta-Album datasets, or a folder with a subfolder of images per class"
        )
    return Source({folder.name: read_class_folders(folder)})


def _read_metadl_root(root: Path) -> Source:
    file = root / "info" / "meta_splits.txt"
    splits = read_json(file)
    names: dict[str, tuple[str, ...]] = {}
    for key in ("meta-train", "meta-test"):
        value = splits.get(key) if isinstance(splits, dict) else None
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise InputError(f"{file}: `{key}` must be a list of dataset folder names, not {value!r}")
        names[key] = tuple(value)
    folders = dict.fromkeys(names["meta-train"] + names["meta-test"])
    return Source({n: read_meta_album(root / n) for n in folders}, names["meta-train"], names["meta-test"])


def split_source(
    source: Source, config: TaskConfig, *, protocol: Protocol = "auto", seed: int, auto_queries: bool = False
) -> Split:
    """Decide meta-train and meta-test; where `auto_queries`, also the queries per class.

    If there is a splits file, it decides. Otherwise classes are split at random, by the seed, within each dataset, or
    whole datasets if the cross-domain protocol is asked for.
    """
    if source.is_metadl_root and protocol != "within-domain":
        assert source.train_names and source.test_names
        test, aside = _enough_images([source.datasets[n] for n in source.test_names], config, clamp=True)
        train = [_whole(source.datasets[n]) for n in source.train_names]
        return _checked("cross-domain", train, test, config, aside)
    datasets = list(source.datasets.values())
    if auto_queries:
        config = config.model_copy(update={"query_images_per_class": queries_for(datasets)})
    usable, aside = _enough_images(datasets, config, clamp=False)
    if protocol == "cross-domain":
        if len(usable) < 2:
            raise InputError("protocol cross-domain needs at least two datasets; use within-domain")
        order = np.random.default_rng(seed).permutation(len(usable))
        train_ids = set(order[: len(usable) // 2].tolist())
        train = [part for i, part in enumerate(usable) if i in train_ids]
        test = [part for i, part in enumerate(usable) if i not in train_ids]
        return _checked("cross-domain", train, test, config, aside)
    train, test = [], []
    for part in usable:
        if len(part.class_names) < 4:
            aside.append(
                f"{part.name}: {len(part.class_names)} usable classes, 4 are needed to split them between "
                "meta-train and meta-test"
            )
            continue
        ours, theirs = _split_classes(part, seed)
        train.append(ours)
        test.append(theirs)
    return _checked("within-domain", train, test, config, aside)


def queries_for(datasets: Sequence[Dataset]) -> int:
    """Queries per class if the user sets none: a quarter of the median class size, but at most 20 as in the format,
    which needs classes of 40 images or more, as in Meta-Album."""
    median = float(np.median(np.concatenate([d.class_sizes for d in datasets])))
    return MOST_QUERIES if median >= 2 * MOST_QUERIES else min(max(int(median // 4), 1), MOST_QUERIES)


def _whole(dataset: Dataset) -> Part:
    return Part(dataset, np.arange(len(dataset.labels)))


def _split_classes(part: Part, seed: int) -> tuple[Part, Part]:
    """Disjoint classes, seeded by the name of the dataset too, so that other datasets have no effect."""
    classes = len(part.class_names)
    order = np.random.default_rng([seed, zlib.crc32(part.name.encode())]).permutation(classes)
    n_train = min(max(round(TRAIN_CLASSES * classes), 2), classes - 2)
    in_train = np.isin(part.labels, order[:n_train])
    return Part(part.dataset, part.rows[in_train]), Part(part.dataset, part.rows[~in_train])


def _enough_images(
    datasets: Sequence[Dataset], config: TaskConfig, *, clamp: bool
) -> tuple[list[Part], list[str]]:
    """Leave out classes with too few images for a task and say so. The smallest class of a dataset limits its
    shots. `clamp` accepts that (the rule of the format); otherwise small classes are left out while most are kept."""
    queries = config.query_images_per_class
    parts, aside = [], []
    for dataset in datasets:
        least = queries + (1 if clamp else (config.k or config.min_k or 1))
        wanted = least if clamp else queries + (config.k or config.max_k or 1)
        sizes = np.sort(dataset.class_sizes[dataset.class_sizes >= least])
        if sizes.size:
            kept_by_share = int(sizes[int((1 - CLASSES_KEPT) * sizes.size)])
            least = max(least, min(wanted, kept_by_share))
        kept = np.flatnonzero(dataset.class_sizes >= least)
        for i in np.flatnonzero(dataset.class_sizes < least):
            aside.append(
                f"{dataset.name}: class `{dataset.class_names[i]}` has {dataset.class_sizes[i]} images, "
                f"fewer than {least} ({queries} queries and {least - queries} shots)"
            )
        if kept.size < 2:
            aside.append(f"{dataset.name}: {kept.size} usable classes, at least 2 are needed")
            continue
        parts.append(Part(dataset, dataset.rows_of_classes(kept)))
    return parts, aside


def _checked(
    protocol: str, train: list[Part], test: list[Part], config: TaskConfig, aside: list[str]
) -> Split:
    if not train or not test:
        reasons = "\n  ".join(aside[-12:])
        raise InputError(
            f"no dataset has enough classes with images for {config.query_images_per_class} queries and the"
            f" shots asked for; ask for fewer with --query-per-class and --shots, or add classes:\n  {reasons}"
        )
    return Split(protocol, tuple(train), tuple(test), config, tuple(aside))
