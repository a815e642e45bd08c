"""Datasets on disk: Meta-Album folders and folders of class folders, read without decoding an image."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ingestion.errors import InputError
from ingestion.tasks import Rows

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)


@dataclass(frozen=True)
class Dataset:
    """Images of one domain. `files[i]` is the image of row i, `labels[i]` (int64) its class id; ids count
    classes in order of first appearance, as the format asks."""

    name: str
    files: tuple[Path, ...]
    labels: Rows
    class_names: tuple[str, ...]

    @cached_property
    def rows_of_class(self) -> Sequence[Rows]:
        """For every class id, its row numbers in ascending order."""
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.cumsum(self.class_sizes)[:-1])

    @cached_property
    def class_sizes(self) -> Rows:
        """Images of each class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def without(self, rows: Iterable[int]) -> Dataset:
        """The dataset without some rows (images that cannot be read)."""
        gone = set(rows)
        keep = [i for i in range(len(self.files)) if i not in gone]
        return dataset_from_names(
            self.name, [self.files[i] for i in keep], [self.class_names[self.labels[i]] for i in keep]
        )

    def rows_of_classes(self, class_ids: Iterable[int]) -> Rows:
        """Row numbers, ascending, of the images that belong to the classes named by id."""
        return np.flatnonzero(np.isin(self.labels, np.fromiter(class_ids, dtype=np.int64)))


def dataset_from_names(name: str, files: Sequence[Path], names: Sequence[str]) -> Dataset:
    """A dataset from one file and one class name per row."""
    ids: dict[str, int] = {}
    labels = np.array([ids.setdefault(n, len(ids)) for n in names], dtype=np.int64)
    name = name.encode("utf-8", "backslashreplace").decode()  # the name of a folder can be any bytes
    return Dataset(name, tuple(files), labels, tuple(ids))


def is_meta_album(folder: Path) -> bool:
    """Whether the folder looks like one dataset in Meta-Album layout."""
    return (folder / "labels.csv").is_file()


def read_meta_album(folder: Path) -> Dataset:
    """One Meta-Album dataset: `labels.csv`, `info.json` and `images/`.

    Raises InputError naming the file and what is wrong with it.
    """
    for needed in ("images", "info.json", "labels.csv"):
        if not (folder / needed).exists():
            raise InputError(f"{folder}: a Meta-Album dataset needs `{needed}`, which is missing")
    file_column, class_column = _columns(folder / "info.json")
    files, names = [], []
    for number, row in _csv_rows(folder / "labels.csv", (file_column, class_column)):
        file_name = Path(row[file_column])
        if file_name.is_absolute() or ".." in file_name.parts:
            raise InputError(
                f"{folder / 'labels.csv'}, line {number}: image `{file_name}` lies outside `images/`; "
                "give a path relative to that folder"
            )
        files.append(folder / "images" / file_name)
        names.append(row[class_column])
    if not files:
        raise InputError(f"{folder / 'labels.csv'}: lists no image")
    return dataset_from_names(folder.name, files, names)


def _columns(info_file: Path) -> tuple[str, str]:
    info = read_json(info_file)
    names = [
        info.get(k) if isinstance(info, dict) else None for k in ("image_column_name", "category_column_name")
    ]
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{info_file}: `image_column_name` and `category_column_name` must name columns of labels.csv"
        )
    return str(names[0]), str(names[1])


def _csv_rows(file: Path, columns: tuple[str, str]) -> Iterable[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise InputError(
                    f"{file}: no column {', '.join(sorted(missing))} (named in info.json); "
                    f"it has {', '.join(reader.fieldnames or ())}"
                )
            for row in reader:
                if any(not row[column] for column in columns):
                    raise InputError(f"{file}, line {reader.line_num}: a file name or class is empty")
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a comma-separated UTF-8 table ({error})") from error


def read_json(file: Path) -> object:
    """The parsed JSON file; InputError names the file and the place where it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error})") from error


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        f
        for f in folder.rglob("*")
        if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()
    )


def read_class_folders(folder: Path) -> Dataset:
    """One folder with a subfolder of images per class; classes and files in sorted order."""
    files: list[Path] = []
    names: list[str] = []
    for class_folder in visible_folders(folder):
        images = _images_in(class_folder)
        files += images
        names += [class_folder.name] * len(images)
    if not files:
        raise InputError(f"{folder}: no images found in its subfolders ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return dataset_from_names(folder.name, files, names)


def visible_folders(folder: Path) -> list[Path]:
    """Subfolders in sorted order, hidden ones left out."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith((".", "__")))
