"""The same image twice, found by content: it must not be among the labelled images and the questions of one task.

Files of equal size are compared by a few blocks, and in whole only where these agree, so little is read twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ingestion.cgroups import count_cores
from ingestion.datasets import Dataset
from ingestion.errors import InputError
from ingestion.folders import counted, printable, shortlist
from ingestion.sources import Source

BLOCK_BYTES = 4096
WHOLE_BYTES = 2 * BLOCK_BYTES
"""Files up to this size are read in whole at once."""
CHUNK = 512
"""Files that are compared between two looks at the clock."""

Groups = list[list[int]]


def set_doubles_aside(
    source: Source, is_late: Callable[[], bool] = lambda: False, *, draws_anew: bool = False
) -> Source:
    """The source with every image once; an image in two classes is left out altogether. Both are noted. In a MetaDL
    root, whose tasks are fixed, they are only noted. `draws_anew`: whatever the layout, tasks are drawn in another
    way, and what one dataset shows with a label no other may ask about. `is_late`: whether to leave it at that, which
    is noted too.

    InputError if a dataset has no other images.
    """
    whole = draws_anew or source.roles is not None
    together = [list(source.datasets)] if whole else [[name] for name in source.datasets]
    is_fixed = source.is_metadl_root and not draws_anew
    datasets = dict(source.datasets)
    lines: list[str] = []
    for names in together:
        members = [datasets[name] for name in names]
        groups = find_doubles([file for dataset in members for file in dataset.files], is_late)
        if groups is None:
            lines.append("not all images were compared to find doubles, for want of time")
            break
        if groups:
            prefix = f"{names[0]}: " if len(together) > 1 else ""
            found = _Found.of(members, groups)
            lines += [prefix + line for line in found.lines(kept=is_fixed)]
            if not is_fixed:
                datasets |= {dataset.name: dataset for dataset in found.remaining(members)}
    return replace(source, datasets=datasets).noting(lines)


def find_doubles(files: Sequence[Path], is_late: Callable[[], bool] = lambda: False) -> Groups | None:
    """Places of files with the same content, ascending in each group; None if it became too late."""
    groups: Groups = [list(range(len(files)))]
    for key_of in (_size, _some_content, _whole_content):
        keys: dict[int, Hashable] = {}
        asked = [place for group in groups for place in group]
        parts = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
        with ThreadPoolExecutor(count_cores()) as pool:
            for found in pool.map(partial(_keys, key_of, files, is_late), parts):
                if found is None:
                    return None
                keys |= found
        groups = [again for group in groups for again in _alike(group, keys)]
    return sorted(groups)


def _keys(
    key_of: Callable[[Path], Hashable],
    files: Sequence[Path],
    is_late: Callable[[], bool],
    places: Sequence[int],
) -> dict[int, Hashable] | None:
    """The key of each of these files, None for one that cannot be read; or None where it is too late."""
    if is_late():
        return None
    keys: dict[int, Hashable] = {}
    for place in places:
        try:
            keys[place] = key_of(files[place])
        except OSError:
            keys[place] = None  # it is named where it is decoded
    return keys


def _alike(group: Iterable[int], keys: dict[int, Hashable]) -> Groups:
    """Those of a group that have the same key, other than None."""
    by_key: dict[Hashable, list[int]] = {}
    for place in group:
        if keys[place] is not None:
            by_key.setdefault(keys[place], []).append(place)
    return [places for places in by_key.values() if len(places) > 1]


def _size(file: Path) -> Hashable:
    return file.stat().st_size or None


def _some_content(file: Path) -> Hashable:
    fd = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        starts = (0,) if size <= WHOLE_BYTES else (size // 2, size - BLOCK_BYTES)
        blocks = [
            os.pread(fd, WHOLE_BYTES if size <= WHOLE_BYTES else BLOCK_BYTES, start) for start in starts
        ]
    finally:
        os.close(fd)
    return hashlib.blake2b(b"".join(blocks), digest_size=16).digest()


def _whole_content(file: Path) -> Hashable:
    with file.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size <= WHOLE_BYTES:
            return b""  # it was read in whole before
        return hashlib.file_digest(stream, "blake2b").digest()


@dataclass(frozen=True)
class _Found:
    """Doubles by whether their class is clear. `gone`: rows, over all datasets, that are left out."""

    in_one: tuple[str, ...]
    in_several: tuple[str, ...]
    gone: frozenset[int]

    @classmethod
    def of(cls, datasets: Sequence[Dataset], groups: Groups) -> _Found:
        files = [file for dataset in datasets for file in dataset.files]
        classes = [(dataset.name, label) for dataset in datasets for label in dataset.labels.tolist()]
        in_one: list[str] = []
        in_several: list[str] = []
        gone: set[int] = set()
        for group in groups:
            same = len({classes[place] for place in group}) == 1
            (in_one if same else in_several).append(_described(files[group[0]], files[group[1]]))
            gone |= set(group[1:] if same else group)
        return cls(tuple(in_one), tuple(in_several), frozenset(gone))

    def lines(self, *, kept: bool) -> list[str]:
        """What was found and what is done about it."""
        lines = []
        once = "left as it is, since a splits file fixes the tasks" if kept else "each is used once"
        out = (
            "left as it is, since a splits file fixes the tasks"
            if kept
            else "left out, since their class is not clear"
        )
        if self.in_one:
            number = counted(len(self.in_one), "image is", "images are")
            lines.append(f"{number} there twice or more in one class, {once}: {shortlist(self.in_one)}")
        if self.in_several:
            number = counted(len(self.in_several), "image is", "images are")
            lines.append(f"{number} in two classes or more, {out}: {shortlist(self.in_several)}")
        return lines

    def remaining(self, datasets: Sequence[Dataset]) -> Iterator[Dataset]:
        """The datasets without those rows."""
        start = 0
        for dataset in datasets:
            end = start + len(dataset.files)
            rows = [place - start for place in self.gone if start <= place < end]
            if len(rows) == len(dataset.files):
                raise InputError(
                    f"{dataset.name}: every image is in two classes or more ({self.in_several[0]}); keep each in one"
                )
            yield dataset.without(rows) if rows else dataset
            start = end


def _described(first: Path, second: Path) -> str:
    if first == second:
        return f"{printable(first.name)}, listed again"
    base = os.path.commonpath([first.parent, second.parent])
    return " = ".join(printable(os.path.relpath(file, base)) for file in (first, second))
