"""Which datasets and classes are for meta-training and which for meta-test."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ingestion.datasets import Dataset
from ingestion.errors import InputError
from ingestion.folders import counted
from ingestion.sources import Roles, Source
from ingestion.tasks import Rows, TaskConfig, group_rows

Protocol = Literal["auto", "within-domain", "cross-domain"]

TRAIN_CLASSES = 0.6
"""Share of a dataset's classes that goes to meta-training in the within-domain protocol."""
CLASSES_KEPT = 0.8
"""Small classes are left out, so that others can have more shots, only while this share of the classes is kept."""
MOST_QUERIES = 20
LEAST_CLASSES = 4
"""Two to learn from and two to tell apart in meta-test."""


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
        object.__setattr__(self, "rows_of_class", group_rows(labels, len(ids)))

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.dataset.name


@dataclass(frozen=True)
class Split:
    """Parts for meta-training and for meta-test, the task configuration of meta-test, and what was left out and why.
    `valid_names`: of the parts of `train` that are meant for validation, where the data say so."""

    protocol: str
    train: tuple[Part, ...]
    test: tuple[Part, ...]
    test_config: TaskConfig
    set_aside: tuple[str, ...]
    valid_names: tuple[str, ...] = ()


def split_source(
    source: Source, config: TaskConfig, *, protocol: Protocol = "auto", seed: int, auto_queries: bool = False
) -> Split:
    """Decide meta-train and meta-test; where `auto_queries`, also the queries per class.

    If there is a splits file, or datasets with a role each, these decide. Otherwise classes are split at random, by
    the seed, within each dataset, or whole datasets if the cross-domain protocol is asked for. InputError if there
    are too few classes or images.
    """
    if source.is_metadl_root and protocol != "within-domain":
        assert source.train_names and source.test_names
        test, aside = _enough_images([source.datasets[n] for n in source.test_names], config, clamp=True)
        train = [_whole(source.datasets[n]) for n in source.train_names]
        return _checked(source, "cross-domain", train, test, config, aside)
    datasets = list(source.datasets.values())
    if auto_queries:
        config = config.model_copy(update={"query_images_per_class": queries_for(datasets)})
    usable, aside = _enough_images(datasets, config, clamp=False)
    if source.roles and protocol != "cross-domain":
        return _split_by_roles(source, source.roles, usable, config, aside)
    if protocol == "cross-domain":
        if len(usable) < 2 or source.roles:
            raise InputError("protocol cross-domain needs at least two datasets; use within-domain")
        order = np.random.default_rng(seed).permutation(len(usable))
        train_ids = set(order[: len(usable) // 2].tolist())
        train = [part for i, part in enumerate(usable) if i in train_ids]
        test = [part for i, part in enumerate(usable) if i not in train_ids]
        return _checked(source, "cross-domain", train, test, config, aside)
    train, test = [], []
    for part in usable:
        if len(part.class_names) < LEAST_CLASSES:
            aside.append(
                f"{part.name}: {len(part.class_names)} usable classes, {LEAST_CLASSES} are needed to split them "
                "between meta-train and meta-test"
            )
            continue
        ours, theirs = _split_classes(part, seed)
        train.append(ours)
        test.append(theirs)
    return _checked(source, "within-domain", train, test, config, aside)


def queries_for(datasets: Sequence[Dataset]) -> int:
    """Queries per class if the user sets none: a quarter of the median class size, but at most 20 as in the format,
    which needs classes of 40 images or more, as in Meta-Album."""
    median = float(np.median(np.concatenate([d.class_sizes for d in datasets])))
    return MOST_QUERIES if median >= 2 * MOST_QUERIES else min(max(int(median // 4), 1), MOST_QUERIES)


def _split_by_roles(
    source: Source, roles: Roles, usable: Sequence[Part], config: TaskConfig, aside: list[str]
) -> Split:
    train = [part for part in usable if part.name in roles.train]
    valid = [part for part in usable if part.name in roles.valid]
    test = [part for part in usable if part.name in roles.test]
    learned = train if roles.are_strict else train or valid
    split = _checked(source, "within-domain", learned, test, config, aside)
    return replace(split, train=(*train, *valid), valid_names=tuple(part.name for part in valid if train))


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
    source: Source, protocol: str, train: list[Part], test: list[Part], config: TaskConfig, aside: list[str]
) -> Split:
    if not train or not test:
        raise InputError(_too_little(source, config))
    return Split(protocol, tuple(train), tuple(test), config, tuple(aside))


def _range(sizes: Rows) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return f"{counted(low, 'image')} each" if low == high else f"{low} to {high} images"


def _too_little(source: Source, config: TaskConfig) -> str:
    """What is there, what is needed, and what to do, in a line."""
    queries, shots = config.query_images_per_class, config.k or config.min_k or 1
    datasets = list(source.datasets.values())
    there = "; ".join(
        f"{d.name} has {counted(len(d.class_names), 'class', 'classes')} with {_range(d.class_sizes)}"
        for d in datasets[:3]
    )
    more = f"; and {len(datasets) - 3} more datasets" if len(datasets) > 3 else ""
    fixed = source.is_metadl_root or source.roles is not None
    least = "2 classes in each part of the split" if fixed else f"{LEAST_CLASSES} classes in a dataset"
    return (
        f"too few classes or images for a run: {there}{more}; it needs {least} with {queries + shots} images each "
        f"({counted(queries, 'query', 'queries')} and {counted(shots, 'shot')}): ask for fewer with "
        "--query-per-class and --shots, or add classes and images; to tell few classes apart, use `autometa fit` and "
        "`autometa classify`"
    )
