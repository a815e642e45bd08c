"""The datasets under a folder, whatever its layout: the first that fits of

1. a MetaDL root (`info/meta_splits.txt`), 2. a dataset with `labels.csv`, 3. a folder of such datasets, 4. folders
`train`, `val` and `test` of class folders, 5. a folder with nothing but one of these, 6. a subfolder for each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ingestion.albums import LABELS_FILE, is_meta_album, read_meta_album
from ingestion.datasets import Dataset, read_class_folders, read_classes, tell_passed_over
from ingestion.errors import InputError
from ingestion.folders import Listing, counted, is_file, is_folder, list_folder, printable, shortlist
from ingestion.preparation import Preparation
from ingestion.tables import read_json

MOST_NOTES = 12
ROLE_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What subfolders are called that hold a part of the images, or of the classes."""


@dataclass(frozen=True)
class Roles:
    """Names of the datasets that hold the classes of meta-train, of its validation and of meta-test. `note`: the line
    that tells it. `are_strict`: classes for validation are never learned from."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    note: str
    are_strict: bool = False


@dataclass(frozen=True)
class Source:
    """Datasets found under the input folder. `train_names`, `test_names`: of a splits file, else None; `roles`: of
    folders whose classes are divided. `notes`: how the folder was read, a line each. `preparations`: of the images of
    a dataset, where it is not the usual one."""

    datasets: dict[str, Dataset]
    train_names: tuple[str, ...] | None = None
    test_names: tuple[str, ...] | None = None
    roles: Roles | None = None
    notes: tuple[str, ...] = ()
    preparations: Mapping[str, Preparation] = field(default_factory=dict)

    @property
    def is_metadl_root(self) -> bool:
        """Whether a splits file fixes meta-train and meta-test."""
        return self.test_names is not None

    def preparation(self, name: str, px: int) -> Preparation:
        """How images of the dataset of this name are prepared at a size."""
        return replace(self.preparations.get(name, Preparation(px)), px=px)

    def noting(self, lines: Iterable[str]) -> Source:
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *lines))


def read_source(folder: Path) -> Source:
    """Find the datasets under `folder`; InputError says what was looked for and what is there."""
    folder = folder.resolve()
    if not is_folder(folder):
        raise InputError(f"dataset folder {folder}: does not exist or is not a folder")
    if is_file(folder / "info" / "meta_splits.txt"):
        return _read_metadl_root(folder)
    if is_meta_album(folder):
        return _of_datasets([read_meta_album(folder)])
    listing = list_folder(folder)
    albums = [f for f in listing.folders if is_meta_album(f)]
    if albums:
        others = [f.name for f in listing.folders if f not in albums and _may_hold_images(f)]
        lines = [f"folders without {LABELS_FILE} passed over: {shortlist(others)}"] if others else []
        return _of_datasets([read_meta_album(f) for f in albums]).noting(lines)
    if not listing.folders:
        raise InputError(
            f"dataset folder {folder}: holds neither info/meta_splits.txt, nor labels.csv, nor subfolders "
            f"({counted(listing.images, 'image')}); give a MetaDL root, Meta-Album datasets, or a folder with a "
            "subfolder of images per class"
        )
    if parts := _parts_of_a_split(listing):
        return _read_parts(folder, parts).noting(tell_passed_over(listing))
    if inner := _only_folder(listing):
        source = read_source(inner)
        return replace(
            source, notes=(f"`{inner.name}`, its only subfolder, is taken as the dataset", *source.notes)
        )
    return _of_datasets([read_class_folders(folder)])


def _may_hold_images(folder: Path) -> bool:
    """Whether passing a folder over is worth a word."""
    try:
        listing = list_folder(folder)
    except InputError:
        return True
    return bool(listing.images or listing.folders)


def summarise(notes: Iterable[str]) -> list[str]:
    """The notes, or the first of them and how many more there are."""
    lines = [printable(line) for line in dict.fromkeys(notes)]
    if len(lines) <= MOST_NOTES:
        return lines
    return [
        *lines[: MOST_NOTES - 1],
        f"and {len(lines) - MOST_NOTES + 1} more notes on how the dataset was read",
    ]


def _of_datasets(datasets: Iterable[Dataset]) -> Source:
    """A source of these datasets, with their notes."""
    by_name = {dataset.name: dataset for dataset in datasets}
    notes = [
        note if len(by_name) == 1 else f"{name}: {note}"
        for name, dataset in by_name.items()
        for note in dataset.notes
    ]
    return Source(by_name, notes=tuple(notes))


def _read_metadl_root(root: Path) -> Source:
    file = root / "info" / "meta_splits.txt"
    splits = read_json(file)
    names: dict[str, tuple[str, ...]] = {}
    for key in ("meta-train", "meta-test"):
        value = splits.get(key) if isinstance(splits, dict) else None
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise InputError(f"{file}: `{key}` must be a list of dataset folder names, not {value!r}")
        names[key] = tuple(value)
    albums = {name: _listed_album(root, name, file) for name in (*names["meta-train"], *names["meta-test"])}
    notes = [f"{name}: {note}" for name, album in albums.items() for note in album.notes]
    return Source(albums, names["meta-train"], names["meta-test"], notes=tuple(notes))


def _listed_album(root: Path, name: str, file: Path) -> Dataset:
    if not is_meta_album(root / name):
        raise InputError(f"{file}: names the dataset `{name}`, but {root / name} has no {LABELS_FILE}")
    return read_meta_album(root / name)


def _only_folder(listing: Listing) -> Path | None:
    """The only subfolder, if it is one around a dataset and no class itself: what unpacking leaves."""
    if listing.images or len(listing.folders) != 1 or listing.folders[0].is_symlink():
        return None
    inner = list_folder(listing.folders[0])
    around = bool(inner.folders) and not inner.images
    return listing.folders[0] if around or is_meta_album(listing.folders[0]) else None


def _parts_of_a_split(listing: Listing) -> dict[str, Path]:
    """Role → folder, if all subfolders are called like parts of a split and at least one holds class folders."""
    if len(listing.folders) < 2 or any(f.name.casefold() not in ROLE_NAMES for f in listing.folders):
        return {}
    parts = {ROLE_NAMES[f.name.casefold()]: f for f in listing.folders}
    if len(parts) < len(listing.folders):
        return {}  # `val` and `validation`
    inner = [list_folder(f) for f in listing.folders]
    return parts if any(part.folders and not part.images for part in inner) else {}


def _read_parts(folder: Path, parts: Mapping[str, Path]) -> Source:
    """One pool where parts share classes; otherwise datasets with a role each."""
    listings = {role: list_folder(parts[role]) for role in ("train", "val", "test") if role in parts}
    unlabelled = [parts[role].name for role, listing in listings.items() if not listing.folders]
    listings = {role: listing for role, listing in listings.items() if listing.folders}
    notes = [f"`{name}` has no class folders, so it is passed over" for name in unlabelled]
    for role, listing in listings.items():
        notes += tell_passed_over(listing, parts[role].name)
    classes = {role: [(f.name, f) for f in listing.folders] for role, listing in listings.items()}
    *learned, last = classes
    known = {name for role in learned for name, _ in classes[role]}
    asked = {name for name, _ in classes[last]}
    if not learned or known & asked:
        if learned:
            notes.append(
                _told_of_pool([parts[role].name for role in classes], len(known & asked), len(known | asked))
            )
        pool = read_classes(folder, [pair for role in classes for pair in classes[role]], notes=notes)
        return _of_datasets([pool])
    if len(learned) == 2 and {name for name, _ in classes["train"]} & {name for name, _ in classes["val"]}:
        classes["train"] += classes.pop("val")
    return _with_roles(folder, classes, {role: parts[role].name for role in classes}).noting(notes)


def _with_roles(
    folder: Path, classes: Mapping[str, list[tuple[str, Path]]], names: Mapping[str, str]
) -> Source:
    """A dataset for each part. `classes`: of `train`, `val` and `test`, as far as there are; `names`: of their
    folders."""
    datasets = {
        part: read_classes(folder, pairs, name=f"{folder.name}-{part}") for part, pairs in classes.items()
    }
    *learned, last = datasets
    valid = [part for part in learned[1:] if part == "val"]
    train = [part for part in learned if part not in valid]
    groups = {"meta-train": train, "validation": valid, "meta-test": [last]}
    described = [
        f"{names[part]} ({counted(len(d.class_names), 'class', 'classes')})" for part, d in datasets.items()
    ]
    uses = ", ".join(use for use, group in groups.items() if group)
    line = f"no class is in two of {', '.join(described)}: they are for {uses}"
    named = [tuple(datasets[part].name for part in group) for group in groups.values()]
    roles = Roles(named[0], named[1], named[2], line)
    return replace(_of_datasets(datasets.values()), roles=roles).noting([line])


def _told_of_pool(names: list[str], shared: int, total: int) -> str:
    which = f"the same {total}" if shared == total else f"{shared} of {total}"
    return f"{', '.join(names)} share {which} classes: their images are one pool, which a run splits anew"
