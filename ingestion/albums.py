"""Datasets with a table of labels: the layout of Meta-Album, and what people make of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ingestion.datasets import Dataset, dataset_from_names, similar_classes
from ingestion.errors import InputError
from ingestion.folders import counted, is_file, shortlist, suffix_of
from ingestion.formats import image_suffixes
from ingestion.tables import read_json_tolerantly, read_table

LABELS_FILE, INFO_FILE, IMAGES_FOLDER = "labels.csv", "info.json", "images"


def is_meta_album(folder: Path) -> bool:
    """Whether the folder looks like one dataset in Meta-Album layout."""
    return is_file(folder / LABELS_FILE)


def read_meta_album(folder: Path) -> Dataset:
    """One Meta-Album dataset: `labels.csv`, `info.json` and `images/`; liberties that are taken with it are in its
    notes.

    Raises InputError naming the file and what is wrong with it.
    """
    columns, notes = _columns(folder / INFO_FILE)
    table = read_table(folder / LABELS_FILE, columns)
    finder = _Finder(folder)
    files = [finder.find(number, name) for number, name, _ in table.rows]
    names = [name for _, _, name in table.rows]
    notes = (*notes, *table.notes, *finder.notes(), *similar_classes(names))
    return dataset_from_names(folder.name, files, names, notes)


def _columns(info_file: Path) -> tuple[tuple[str, str] | None, tuple[str, ...]]:
    if not info_file.exists():
        return None, ()
    info, notes = read_json_tolerantly(info_file)
    keys = ("image_column_name", "category_column_name")
    names = [info.get(key) if isinstance(info, dict) else None for key in keys]
    if not any(names):
        return None, notes
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{info_file}: `image_column_name` and `category_column_name` must name columns of labels.csv"
        )
    return (str(names[0]), str(names[1])), notes


@dataclass
class _Finder:
    """Finds the files that a table names, by listings of their folders instead of a look at each."""

    folder: Path
    beside: list[str] = field(default_factory=list)
    respelled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        images = self.folder / IMAGES_FOLDER
        self._bases = [base for base in (images, self.folder) if base.is_dir()]
        self._listed: dict[Path, frozenset[str]] = {}
        self._folded: dict[Path, dict[str, list[str]]] = {}

    def find(self, number: int, name: str) -> Path:
        """The file of this name, in `images/` or else beside the table; where there is none, the one that should be
        there. InputError names the line if the name leads elsewhere or has two readings."""
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(
                f"{self.folder / LABELS_FILE}, line {number}: image `{name}` lies outside `images/`; "
                "give a path relative to that folder"
            )
        for base in self._bases:
            if self._is_there(base / parts):
                self._note_place(name, base / parts)
                return base / parts
        for base in self._bases:
            if found := self._respelled(base, PurePosixPath(name.replace("\\", "/")), number):
                self.respelled.append(f"{name} is {found.relative_to(base)}")
                self._note_place(name, found)
                return found
        self.missing.append(name)
        return self._bases[0] / parts

    def notes(self) -> list[str]:
        """A line for each liberty."""
        lines = []
        if self.missing:
            number = counted(len(self.missing), "image that it names is", "images that it names are")
            lines.append(f"{LABELS_FILE}: {number} not there: {shortlist(self.missing)}")
        if self.beside:
            number = counted(len(self.beside), "image lies", "images lie")
            lines.append(f"{number} beside {LABELS_FILE}, not in `{IMAGES_FOLDER}/`")
        if self.respelled:
            number = counted(len(self.respelled), "file name is", "file names are")
            lines.append(f"{number} spelled otherwise in {LABELS_FILE}: {shortlist(self.respelled)}")
        return lines

    def _note_place(self, name: str, file: Path) -> None:
        if file.relative_to(self.folder).parts[0] != IMAGES_FOLDER:
            self.beside.append(name)

    def _is_there(self, file: Path) -> bool:
        return file.name in self._listing(file.parent)

    def _listing(self, folder: Path) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(entry.name for entry in folder.iterdir())
            except OSError:
                self._listed[folder] = frozenset()  # its files are named when they cannot be read
        return self._listed[folder]

    def _respelled(self, base: Path, parts: PurePosixPath, number: int) -> Path | None:
        """The one file whose path differs only in case, or in a suffix that the table leaves out. InputError if there
        are two."""
        if ".." in parts.parts:
            return None
        found = base
        for part in parts.parts:
            if part in self._listing(found):
                found /= part
                continue
            similar = self._similar(found, part)
            if len(similar) > 1:
                raise InputError(
                    f"{self.folder / LABELS_FILE}, line {number}: image `{parts}` may be {' or '.join(similar)}; "
                    "spell it as the file is called"
                )
            if not similar:
                return None
            found /= similar[0]
        return found

    def _similar(self, folder: Path, name: str) -> list[str]:
        if folder not in self._folded:
            self._folded[folder] = {}
            for there in sorted(self._listing(folder)):
                keys = {there.casefold()}
                if suffix_of(there) in image_suffixes():
                    keys.add(there[: -len(suffix_of(there))].casefold())
                for key in keys:
                    self._folded[folder].setdefault(key, []).append(there)
        return self._folded[folder].get(name.casefold(), [])
