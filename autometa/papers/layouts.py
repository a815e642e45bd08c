"""How the datasets of papers lie on disk: which image is of which class, and which classes are for what.

Nothing is decoded here. Every reader raises DataError or InputError, in one line, for a folder that is not as it
should be.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from autometa.core.errors import DataError
from ingestion import read_labelled
from ingestion.class_splits import ClassSplit, read_class_split
from ingestion.datasets import Dataset, dataset_from_names, read_classes
from ingestion.folders import list_folder

DataKind = Literal["omniglot", "mini_imagenet", "tiered_imagenet", "cifar_fs", "cub", "classes"]
Labelled = tuple[Dataset, ClassSplit | None]
"""A dataset, and the split of its classes that its folder holds or its papers take (None: there is none)."""

PARTS = ("train", "val", "test")
OMNIGLOT_PARTS = ("images_background", "images_evaluation")
OMNIGLOT_TRAIN, OMNIGLOT_VALIDATION, OMNIGLOT_CHARACTERS = 1100, 100, 1623
"""Characters, drawn at random, to train and to validate on, of all of them (Finn et al. 2017; the others are for the
test)."""
OMNIGLOT_SEED = 0
CIFAR_SPLITS = Path("splits") / "bertinetto"


@dataclass(frozen=True)
class Layout:
    """`read` a folder. `expected`: what it must hold, for people. `turns`: classes that are made of one by quarter
    turns, the class itself among them. `inverted`: light becomes dark."""

    read: Callable[[Path], Labelled]
    expected: str
    turns: int = 1
    inverted: bool = False


def read_omniglot(folder: Path) -> Labelled:
    """Omniglot (Lake et al. 2015): 1623 characters of 50 alphabets, 20 images each. Characters are drawn at random to
    train on, always the same, as in MAML; Vinyals et al. 2016 do not say which theirs are."""
    if not all((folder / part).is_dir() for part in OMNIGLOT_PARTS):
        raise _misplaced("omniglot", folder)
    characters = [
        (f"{alphabet.name}/{character.name}", character)
        for part in OMNIGLOT_PARTS
        for alphabet in list_folder(folder / part).folders
        for character in list_folder(alphabet).folders
    ]
    dataset = read_classes(folder, characters, name="Omniglot")
    names = dataset.class_names
    ends = np.rint(
        np.array([OMNIGLOT_TRAIN, OMNIGLOT_TRAIN + OMNIGLOT_VALIDATION]) * len(names) / OMNIGLOT_CHARACTERS
    )
    drawn = np.random.default_rng(OMNIGLOT_SEED).permutation(len(names))
    train, validation, test = (
        tuple(names[place] for place in np.sort(part)) for part in np.split(drawn, ends.astype(int))
    )
    return dataset, ClassSplit(train, validation, test)


def read_mini_imagenet(folder: Path) -> Labelled:
    """miniImageNet with the split of Ravi & Larochelle 2017: a folder of images, and tables that name the images of
    each class."""
    if not (folder / "images").is_dir() or not all((folder / f"{part}.csv").is_file() for part in PARTS):
        raise _misplaced("mini_imagenet", folder)
    files, names = [], []
    for part in PARTS:
        for file, label in _read_images(folder / f"{part}.csv"):
            files.append(folder / "images" / file)
            names.append(label)
    return dataset_from_names("miniImageNet", files, names), read_class_split(folder)


def _read_images(table: Path) -> Iterable[tuple[str, str]]:
    """File name and label of each line of a table. DataError names what is wrong with it."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as comma-separated UTF-8 ({error}); correct it") from error
    for number, row in enumerate(rows, start=2):
        file, label = (row.get("filename") or "").strip(), (row.get("label") or "").strip()
        if not label or not file or Path(file).name != file:
            raise DataError(
                f"{table}, line {number}: filename `{file[:60]}` with label `{label[:60]}`; give the name of a file "
                "in images/ and a class, under the header `filename,label`"
            )
        yield file, label


def read_tiered_imagenet(folder: Path) -> Labelled:
    """tieredImageNet (Ren et al. 2018): class folders in a folder for each part."""
    return _read_parts("tiered_imagenet", "tieredImageNet", folder)


def read_cifar_fs(folder: Path) -> Labelled:
    """CIFAR-FS (Bertinetto et al. 2019): class folders with the lists of classes that it is published with, or in a
    folder for each part, or class folders alone, whose split is to be given."""
    lists = folder / CIFAR_SPLITS
    if (folder / "data").is_dir() and lists.is_dir():
        return _read_folders(folder / "data", "CIFAR-FS"), _read_lists(lists)
    if (folder / "train").is_dir():
        return _read_parts("cifar_fs", "CIFAR-FS", folder)
    if not folder.is_dir() or not list_folder(folder).folders:
        raise _misplaced("cifar_fs", folder)
    return _read_folders(folder, "CIFAR-FS"), None


def read_cub(folder: Path) -> Labelled:
    """CUB-200-2011 (Wah et al. 2011). Where no split is given: every second class to train on, every fourth to
    validate and to test on, as in Chen et al. 2019."""
    inner = folder / "CUB_200_2011"
    folder = inner if inner.is_dir() else folder
    tables = [folder / name for name in ("images.txt", "image_class_labels.txt", "classes.txt")]
    if not (folder / "images").is_dir() or not all(table.is_file() for table in tables):
        raise _misplaced("cub", folder)
    images, labels, classes = (dict(_read_pairs(table)) for table in tables)
    if lacking := [number for number in images if classes.get(labels.get(number, "")) is None]:
        raise DataError(
            f"{tables[1]}: image {lacking[0]} has no class of classes.txt; unpack the dataset again"
        )
    dataset = dataset_from_names(
        "CUB-200-2011",
        [folder / "images" / file for file in images.values()],
        [classes[labels[number]] for number in images],
    )
    names = dataset.class_names
    return dataset, ClassSplit(names[::2], names[1::4], names[3::4])


def _read_pairs(table: Path) -> Iterable[tuple[str, str]]:
    """Both words of each line. DataError names the line that has others."""
    for number, line in enumerate(_read_lines(table), start=1):
        words = line.split()
        if len(words) != 2 or ".." in Path(words[1]).parts or Path(words[1]).is_absolute():
            raise DataError(
                f"{table}, line {number}: `{line[:60]}`; two words are needed: unpack the dataset again"
            )
        yield words[0], words[1]


def read_class_folders(folder: Path) -> Labelled:
    """Any labelled images, such as class folders or a dataset of Meta-Album; the split is to be given."""
    if not folder.is_dir():
        raise _misplaced("classes", folder)
    return read_labelled(folder), None


def _read_folders(folder: Path, name: str) -> Dataset:
    return read_classes(folder, [(each.name, each) for each in list_folder(folder).folders], name=name)


def _read_parts(kind: DataKind, name: str, folder: Path) -> Labelled:
    """Class folders in train, val and test. DataError where a class is in two of them."""
    if not all((folder / part).is_dir() for part in PARTS):
        raise _misplaced(kind, folder)
    folders = {part: list_folder(folder / part).folders for part in PARTS}
    _check_doubles(folder, [each.name for part in PARTS for each in folders[part]])
    dataset = read_classes(folder, [(each.name, each) for part in PARTS for each in folders[part]], name=name)
    train, validation, test = (tuple(each.name for each in folders[part]) for part in PARTS)
    return dataset, ClassSplit(train, validation, test)


def _read_lists(folder: Path) -> ClassSplit:
    train, validation, test = (tuple(_read_lines(folder / f"{part}.txt")) for part in PARTS)
    _check_doubles(folder, [*train, *validation, *test])
    return ClassSplit(train, validation, test)


def _check_doubles(folder: Path, names: Sequence[str]) -> None:
    """DataError where a class is twice in these names of all parts."""
    if doubles := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(
            f"{folder}: class `{doubles[0]}` is in two of {', '.join(PARTS)}; leave it in one of them"
        )


def _read_lines(file: Path) -> Sequence[str]:
    """The lines of a file that are not empty. DataError where it cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error}); copy it again") from error
    return [line.strip() for line in lines if line.strip()]


def _misplaced(kind: DataKind, folder: Path) -> DataError:
    return DataError(f"--data {folder}: is no {kind}, which is {LAYOUTS[kind].expected}; name that folder")


LAYOUTS: dict[DataKind, Layout] = {
    "omniglot": Layout(
        read_omniglot,
        "a folder with images_background/ and images_evaluation/, each with ALPHABET/CHARACTER/*.png",
        turns=4,
        inverted=True,
    ),
    "mini_imagenet": Layout(
        read_mini_imagenet, "a folder with images/ and train.csv, val.csv, test.csv (columns filename, label)"
    ),
    "tiered_imagenet": Layout(
        read_tiered_imagenet, "a folder with train/, val/ and test/, each with class folders"
    ),
    "cifar_fs": Layout(
        read_cifar_fs,
        "a folder with train/, val/ and test/, or with data/ and splits/bertinetto/, or with class folders",
    ),
    "cub": Layout(
        read_cub, "a folder with images/, images.txt, image_class_labels.txt and classes.txt (CUB_200_2011)"
    ),
    "classes": Layout(read_class_folders, "a folder with class folders, or with labels.csv and images/"),
}
"""The kinds of datasets."""
