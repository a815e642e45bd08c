"""Class-level splits: which classes of one dataset are for meta-train, for its validation and for meta-test.

Two forms. A JSON file, `{"meta-train": [names], "meta-valid": [names], "meta-test": [names]}`, where `meta-valid` may
be left out. Or a folder with `train.csv`, `val.csv` and `test.csv` as Ravi & Larochelle (2017) gave them for
miniImageNet: a header with the column `label`, and a line for each image; `val.csv` may be left out.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ingestion.errors import InputError
from ingestion.folders import counted, is_file, is_folder, printable, shortlist
from ingestion.tables import read_json
from ingestion.tasks import Rows

TRAIN, VALID, TEST = "meta-train", "meta-valid", "meta-test"
TABLES = {TRAIN: "train.csv", VALID: "val.csv", TEST: "test.csv"}
LABEL = "label"
"""The column of the tables that names the class."""
MOST_BYTES = 2**26
"""Of a file. The tables of tieredImageNet, with an image a line, have 20 MB."""
MOST_NEAREST = 3


@dataclass(frozen=True)
class ClassSplit:
    """Names of the classes of each part, in the order of the file. No class is in two parts; only `validation` may
    be empty."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that tell this split from others, whatever the form of its file and the order of
        the names in it."""
        content = json.dumps([sorted(part) for part in astuple(self)])
        return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()

    def ids_in(self, class_names: Sequence[str], dataset: str) -> tuple[Rows, Rows, Rows]:
        """The ids, ascending, of the classes to train, to validate and to test on in a dataset with these names.
        InputError where `dataset` lacks a class that the split names."""
        places = {name: place for place, name in enumerate(class_names)}
        if lacking := [name for part in astuple(self) for name in part if name not in places]:
            raise InputError(
                f"class split: {dataset} has no class {_named(lacking)}; {_nearest(lacking[0], class_names)}; "
                "correct the names in the file, or give the dataset that it was made for"
            )
        train, validation, test = (
            np.array(sorted(places[name] for name in part), dtype=np.int64) for part in astuple(self)
        )
        return train, validation, test


def read_class_split(path: Path) -> ClassSplit:
    """The split in a JSON file, or in a folder of three tables. InputError names the file, what is wrong with it and
    the fix."""
    if is_folder(path):
        parts = _read_tables(path)
    elif is_file(path):
        parts = _read_parts(path)
    else:
        raise InputError(
            f"class split {path}: there is no such file; give a JSON file with {_keys()}, or a folder with "
            f"{', '.join(TABLES.values())}"
        )
    return _checked(path, parts)


def _read_parts(file: Path) -> dict[str, tuple[str, ...]]:
    """The lists of a JSON file, by its keys."""
    _check_size(file)
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: is no object; write an object with {_keys()}")
    if unknown := [key for key in content if key not in TABLES]:
        raise InputError(f"{file}: unknown key {_named(unknown)}; it may have {_keys()}")
    parts = {}
    for key, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"{file}: `{key}` = {names!r:.80} is no list of class names; write one")
        parts[key] = tuple(map(printable, names))  # as datasets name their classes
        if doubles := [name for name, times in Counter(parts[key]).items() if times > 1]:
            raise InputError(f"{file}: `{key}` names the class {_named(doubles)} twice; delete one of them")
    return parts


def _read_tables(folder: Path) -> dict[str, tuple[str, ...]]:
    """The labels of the tables that are in a folder, by the keys of the JSON form."""
    if not is_file(folder / TABLES[TRAIN]) or not is_file(folder / TABLES[TEST]):
        raise InputError(
            f"class split {folder}: lacks {TABLES[TRAIN]} or {TABLES[TEST]}; put both there, and {TABLES[VALID]} "
            "for validation, or give a JSON file"
        )
    return {key: _read_labels(folder / name) for key, name in TABLES.items() if is_file(folder / name)}


def _read_labels(file: Path) -> tuple[str, ...]:
    """The labels of a table in order of first appearance; it is read line by line."""
    _check_size(file)
    labels: dict[str, None] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [cell.strip().casefold() for cell in next(reader, [])]
            if LABEL not in header:
                raise InputError(
                    f"{file}: no column `{LABEL}` in its first line ({shortlist(header)}); write the header "
                    f"`filename,{LABEL}`"
                )
            place = header.index(LABEL)
            for row in reader:
                label = row[place].strip() if place < len(row) else ""
                if label:
                    labels.setdefault(printable(label))
                elif any(map(str.strip, row)):
                    raise InputError(f"{file}, line {reader.line_num}: no label; complete or delete the line")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as comma-separated UTF-8 ({error}); correct it") from error
    return tuple(labels)


def _check_size(file: Path) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); allow it to be read") from error
    if size > MOST_BYTES:
        raise InputError(f"{file}: has {size:,} bytes, more than the {MOST_BYTES:,} of any class split")


def _checked(path: Path, parts: Mapping[str, tuple[str, ...]]) -> ClassSplit:
    """The split of these lists. InputError where a class is in two of them, or one that is needed is empty."""
    part_of: dict[str, str] = {}
    for key, names in parts.items():
        for name in names:
            if name in part_of:
                raise InputError(
                    f"{path}: class `{name}` is in {part_of[name]} and in {key}; leave it in one of them"
                )
            part_of[name] = key
    for key in (TRAIN, TEST):
        if not parts.get(key):
            raise InputError(f"{path}: no class for {key}; name some")
    return ClassSplit(parts[TRAIN], parts.get(VALID, ()), parts[TEST])


def _nearest(name: str, class_names: Sequence[str]) -> str:
    """The classes whose names are most like this one, else the first ones."""
    folded = {known.casefold(): known for known in class_names}
    close = difflib.get_close_matches(name.casefold(), folded, MOST_NEAREST)
    if close:
        return f"nearest to `{printable(name)}` are {_named(folded[key] for key in close)}"
    number = counted(len(class_names), "class", "classes")
    return f"it has {number}: {shortlist(class_names)}"


def _named(names: Iterable[str]) -> str:
    return shortlist(f"`{name}`" for name in names)


def _keys() -> str:
    return ", ".join(f"`{key}`" for key in TABLES)
