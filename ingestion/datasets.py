"""Datasets on disk, read without decoding an image, and folders of class folders as such."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ingestion.errors import InputError
from ingestion.folders import ClassWalk, Listing, counted, list_folder, printable, shortlist
from ingestion.tasks import Rows, group_rows


@dataclass(frozen=True)
class Dataset:
    """Images of one domain. `files[i]` is the image of row i, `labels[i]` (int64) its class id; ids count
    classes in order of first appearance, as the format asks. `notes`: what was passed over or read with some liberty,
    a line each."""

    name: str
    files: tuple[Path, ...]
    labels: Rows
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def rows_of_class(self) -> Sequence[Rows]:
        """For every class id, its row numbers in ascending order."""
        return group_rows(self.labels, len(self.class_names))

    @cached_property
    def class_sizes(self) -> Rows:
        """Images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def without(self, rows: Iterable[int]) -> Dataset:
        """The dataset without some rows (such as images that cannot be read)."""
        gone = set(rows)
        keep = [i for i in range(len(self.files)) if i not in gone]
        return dataset_from_names(
            self.name,
            [self.files[i] for i in keep],
            [self.class_names[self.labels[i]] for i in keep],
            self.notes,
        )

    def rows_of_classes(self, class_ids: Iterable[int]) -> Rows:
        """Row numbers, ascending, of the images that belong to the classes named by id."""
        return np.flatnonzero(np.isin(self.labels, np.fromiter(class_ids, dtype=np.int64)))


def dataset_from_names(
    name: str, files: Sequence[Path], names: Sequence[str], notes: Iterable[str] = ()
) -> Dataset:
    """A dataset from one file and one class name per row."""
    ids: dict[str, int] = {}
    labels = np.array([ids.setdefault(n, len(ids)) for n in names], dtype=np.int64)
    shown = tuple(map(printable, ids))  # the name of a folder can be any bytes
    return Dataset(printable(name), tuple(files), labels, shown, tuple(notes))


def read_class_folders(folder: Path) -> Dataset:
    """One folder with a subfolder of images per class, at any depth; classes and files in sorted order. What is
    passed over is in the notes. InputError if there is no image."""
    listing = list_folder(folder)
    return read_classes(folder, [(f.name, f) for f in listing.folders], notes=tell_passed_over(listing))


def tell_passed_over(listing: Listing, part: str = "") -> list[str]:
    """A line for each kind of thing that lies beside class folders; `part`: the part of a split that they are of."""
    notes = []
    if listing.images:
        where = f"the class folders of `{part}`" if part else "the class folders"
        notes.append(f"{counted(listing.images, 'image')} beside {where} passed over: of no class")
    if listing.hidden:
        names = [f"{part}/{name}" if part else name for name in listing.hidden]
        notes.append(f"hidden folders passed over: {shortlist(names)}")
    return notes


def read_classes(
    folder: Path, classes: Sequence[tuple[str, Path]], *, name: str = "", notes: Iterable[str] = ()
) -> Dataset:
    """The images of some folders below `folder`, each with the name of its class, which several may share. InputError
    if there is no image."""
    walk = ClassWalk(folder)
    walk.read(classes)
    files, names = walk.files()
    lines = [*notes, *walk.notes()]
    if not files:
        found = "; ".join(lines) or "it has no subfolders"
        raise InputError(
            f"{folder}: no image in its {counted(len(walk.images), 'class folder')}; put images of each class into a "
            f"subfolder of their own ({found})"
        )
    return dataset_from_names(name or folder.name, files, names, [*lines, *similar_classes(names)])


def similar_classes(names: Iterable[str]) -> list[str]:
    """A line for classes that differ in case only. They stay apart, as `a` and `A` of handwriting must."""
    known: dict[str, str] = {}
    similar = [
        f"{first} and {name}"
        for name in dict.fromkeys(names)
        if (first := known.setdefault(name.casefold(), name)) != name
    ]
    return [f"classes that differ in case only are kept apart: {shortlist(similar)}"] if similar else []
