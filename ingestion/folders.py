"""A walk through folders of images, one a class: what is an image, and what is passed over and why.

One `os.scandir` of each folder; files are not touched. Real folders come first, links to folders after them, so that
a link never stands in for the folder itself, and what was read once is not read again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingestion.errors import InputError
from ingestion.formats import REMEDIES, image_suffixes, read_image_size
from ingestion.shown import show

MOST_NAMED = 3
"""Names in a list, before it says how many more there are."""
MOST_SUFFIXES = 6

Identity = tuple[int, int]
"""Device and inode of a folder."""


@dataclass(frozen=True)
class Listing:
    """What lies directly in a folder: visible folders, images, and names of hidden folders."""

    folders: tuple[Path, ...]
    images: int
    hidden: tuple[str, ...]


def list_folder(folder: Path) -> Listing:
    """The listing of a folder, sorted. InputError if it cannot be opened."""
    folders: list[str] = []
    hidden: list[str] = []
    images = 0
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened ({error.strerror}); allow it to be read") from error
    for entry in entries:
        if _is_folder(entry):
            (hidden if is_hidden(entry.name) else folders).append(entry.name)
        elif not entry.name.startswith(".") and suffix_of(entry.name) in image_suffixes():
            images += 1
    return Listing(tuple(sorted(folder / name for name in folders)), images, tuple(sorted(hidden)))


def is_hidden(name: str) -> bool:
    """Whether a folder of this name belongs to a program: `.ipynb_checkpoints`, `__MACOSX`, `@eaDir`."""
    return name.startswith((".", "__")) or name == "@eaDir"


def is_file(path: Path) -> bool:
    """Whether there is a file; not, as far as anyone can tell, in a folder that cannot be opened."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder, likewise."""
    try:
        return path.is_dir()
    except OSError:
        return False


def suffix_of(name: str) -> str:
    """The suffix in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - for every file, and a Path takes ten times as long


def printable(name: str | Path) -> str:
    """The name on one line, whatever bytes it has."""
    return show(os.fspath(name))


def shortlist(names: Iterable[str], most: int = MOST_NAMED) -> str:
    """The first few names, and how many more there are."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return ", ".join(map(printable, unique[:most])) + more


def counted(number: int, what: str, plural: str = "") -> str:
    """`1 file`, `2 files`; `plural` where it is not made by an s."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


@dataclass
class ClassWalk:
    """Images of the classes below `root`, and what was passed over. `images`: class → files."""

    root: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seen: set[Identity] = set()
        self._links: list[tuple[str, str]] = []
        root = self.root.resolve()
        self._above = {_identity(os.fspath(folder)) for folder in (root, *root.parents)}

    def read(self, folders: Sequence[tuple[str, Path]]) -> None:
        """Walk through these folders, each with the name of its class."""
        for label, folder in folders:
            if folder.is_symlink() and folder != self.root:  # who names a link means what it leads to
                self._links.append((label, os.fspath(folder)))
            else:
                self._walk(label, os.fspath(folder))
        while self._links:  # those of links come after them
            links, self._links = self._links, []
            for label, link in links:
                self._follow(label, link)

    def files(self) -> tuple[list[Path], list[str]]:
        """All images and the class of each; classes and their files in sorted order."""
        files: list[Path] = []
        names: list[str] = []
        for label in sorted(self.images):
            found = sorted(map(Path, self.images[label]))
            files += found
            names += [label] * len(found)
        return files, names

    def notes(self) -> list[str]:
        """A line for each kind of thing that was passed over."""
        empty = [label for label, found in self.images.items() if not found]
        lines = [
            (self._passed_over(), "{}"),
            (self._why_empty(empty), "classes without an image: {}"),
            (shortlist(self.nested), "images in subfolders of a class count for it: {}"),
            (shortlist(self.hidden), "hidden folders passed over: {}"),
            (shortlist(self.unreadable), "folders that cannot be opened, passed over: {}"),
            (shortlist(self.repeated), "links passed over, since they lead to what is read already: {}"),
        ]
        if self.dangling:
            number = counted(len(self.dangling), "link leads", "links lead")
            lines.append((f"{number} nowhere: {shortlist(self.dangling)}", "{}"))
        return [template.format(text) for text, template in lines if text]

    def tell_unread(self) -> list[str]:
        """A line for each kind of thing that may hold images which cannot be read here."""
        lines = [
            f"{counted(len(labels), f'{suffix} file')} cannot be read here; {REMEDIES[suffix]}"
            for suffix, labels in sorted(self.others.items())
            if suffix in REMEDIES
        ]
        if self.unreadable:
            lines.append(f"folders that cannot be opened: {shortlist(self.unreadable)}")
        if self.dangling:
            lines.append(
                f"{counted(len(self.dangling), 'link leads', 'links lead')} nowhere: {shortlist(self.dangling)}"
            )
        return lines

    def _walk(self, label: str, top: str) -> None:
        stack = [top]
        while stack:
            folder = stack.pop()
            try:
                identity = _identity(folder)
                if identity in self._seen:
                    self.repeated.append(self._name(folder))
                    continue
                self._seen.add(identity)
                with os.scandir(folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.unreadable.append(f"{self._name(folder)} ({error.strerror})")
                continue
            before = len(self.images.setdefault(label, []))
            for entry in listed:
                if entry.is_symlink() and _is_folder(entry):
                    if not is_hidden(entry.name):
                        self._links.append((label, entry.path))
                elif _is_folder(entry):
                    if is_hidden(entry.name):
                        self.hidden.append(self._name(entry.path))
                    else:
                        stack.append(entry.path)
                elif not entry.name.startswith("."):
                    self._take(label, entry)
            if folder != top and len(self.images[label]) > before:
                self.nested.append(label)

    def _take(self, label: str, entry: os.DirEntry[str]) -> None:
        suffix = suffix_of(entry.name)
        if not _is_file(entry):
            if entry.is_symlink():
                self.dangling.append(self._name(entry.path))
        elif suffix in image_suffixes() or (not suffix and read_image_size(Path(entry.path)) is not None):
            self.images[label].append(entry.path)
        else:
            self.others.setdefault(suffix, []).append(label)

    def _follow(self, label: str, link: str) -> None:
        """Walk through the folder that a link leads to, unless that was or will be read under its own name."""
        try:
            target = _identity(link)
        except OSError as error:
            self.unreadable.append(f"{self._name(link)} ({error.strerror})")
            return
        if target in self._above:
            self.repeated.append(f"{self._name(link)} (a folder that holds this dataset)")
        elif target in self._seen:
            self.repeated.append(f"{self._name(link)} ({self._name(os.path.realpath(link))})")
        else:
            self._walk(label, link)

    def _passed_over(self) -> str:
        """The files that are no images, by suffix; first those for which there is a remedy."""
        kinds = sorted(
            self.others, key=lambda suffix: (suffix not in REMEDIES, -len(self.others[suffix]), suffix)
        )
        parts = []
        for suffix in kinds[:MOST_SUFFIXES]:
            labels = self.others[suffix]
            where = f"class {shortlist(sorted(labels))}"
            remedy = f"; {REMEDIES[suffix]}" if suffix in REMEDIES else ""
            parts.append(f"{len(labels):,} {printable(suffix) or 'without suffix'} ({where}{remedy})")
        if len(kinds) > MOST_SUFFIXES:
            parts.append(f"and {len(kinds) - MOST_SUFFIXES} more suffixes")
        total = sum(map(len, self.others.values()))
        return f"{counted(total, 'file')} passed over: {', '.join(parts)}" if parts else ""

    def _why_empty(self, empty: Sequence[str]) -> str:
        """These classes, each with what it holds instead of images."""
        held = {label: Counter[str]() for label in empty}
        for suffix, labels in self.others.items():
            for label in labels:
                if label in held:
                    held[label][suffix or "without suffix"] += 1
        described = {
            label: ", ".join(f"{number} {suffix}" for suffix, number in kinds.most_common(MOST_NAMED))
            for label, kinds in held.items()
        }
        return shortlist(f"{label} ({kinds or 'empty'})" for label, kinds in described.items())

    def _name(self, path: str) -> str:
        """The path as seen from the dataset."""
        inside = os.path.relpath(path, self.root)
        return printable(path if inside.startswith("..") else inside)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # such as a link to itself


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(folder: str) -> Identity:
    status = os.stat(folder)  # noqa: PTH116 - folders are plain strings in the walk
    return status.st_dev, status.st_ino
