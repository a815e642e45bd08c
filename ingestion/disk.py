"""What a submission may keep on disk: bytes and files in all of its folders together."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ingestion.errors import InputError
from ingestion.memory import BLOCK_BYTES, Inode, Look, inode_of

MAX_BYTES = 16 * 2**30
MAX_FILES = 200_000
MAX_DEPTH = 64
"""Deeper folders than any program needs; they would be too deep to be deleted."""
SHARE_OF_FREE = 0.5
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""A folder was moved, or has become a file or a link, while it was looked at."""


class TooMuchError(Exception):
    """The folders hold more than is allowed; the message says what, and how much is allowed."""


class DiskMeter:
    """Folders of a submission, and how much they may hold: half of the space that is free at the start is left to
    everything else. `given` are files that ingestion handed over, with their sizes."""

    def __init__(self, folders: Iterable[Path], given: dict[Inode, int]) -> None:
        self._folders = tuple(folders)
        self._given = given
        free = min(shutil.disk_usage(folder).free for folder in self._folders)
        try:
            there = sum(status.st_blocks * BLOCK_BYTES for status in self._entries())
        except TooMuchError as error:
            raise InputError(
                f"{self._folders[0].parent}: holds {error}; start again with --overwrite"
            ) from error
        self.max_bytes = min(MAX_BYTES, there + int(SHARE_OF_FREE * free))
        self.max_files = MAX_FILES
        self._devices = {folder.stat().st_dev for folder in self._folders}

    def excess(self, pids: Iterable[int], look: Look | None = None) -> str:
        """What is too much in the folders and in files without a name that these processes hold open, or "".
        TooManyError, StoppedError: see `Look`."""
        look = look or Look()
        used_bytes = sum(self._nameless(pids, look).values())
        files = 0
        try:
            for status in look.each(self._entries()):
                used_bytes += status.st_blocks * BLOCK_BYTES
                files += 1
                if used_bytes > self.max_bytes or files > self.max_files:
                    break
        except TooMuchError as error:
            return f"its folders hold {error}"
        if used_bytes > self.max_bytes:
            return (
                f"its folders (model, logs, scratch) hold more than {self.max_bytes / 1e9:.2f} GB, the most"
            )
        if files > self.max_files:
            return f"its folders (model, logs, scratch) hold more than {self.max_files} files, the most"
        return ""

    def _entries(self) -> Iterator[os.stat_result]:
        """Every file and folder; no link is followed."""
        for folder in self._folders:
            for entry in entries(folder):
                try:
                    yield entry.stat()
                except OSError as error:
                    if error.errno not in GONE:
                        raise TooMuchError(f"a file that cannot be read ({error.strerror})") from error

    def _nameless(self, pids: Iterable[int], look: Look) -> dict[Inode, int]:
        found: dict[Inode, int] = {}
        for pid in pids:
            sizes = {inode: size for inode, size in look.mapped_files(pid) if inode[0] in self._devices}
            for status in look.open_files(pid):
                if status.st_nlink == 0 and status.st_dev in self._devices:
                    sizes[inode_of(status)] = status.st_blocks * BLOCK_BYTES
            for inode, size in sizes.items():
                found[inode] = max(size - self._given.get(inode, 0), found.get(inode, 0))
        return found


class Entry(NamedTuple):
    """A file, a folder or a link, as it was when its folder was read."""

    path: str
    is_file: bool

    def stat(self) -> os.stat_result:
        """Of itself, not of what a link leads to."""
        return os.lstat(self.path)


def entries(folder: Path) -> Iterator[Entry]:
    """All files and folders below, in no order. A folder that has become a link meanwhile is not followed.
    TooMuchError where they are nested too deeply or unreadable."""
    left = [(str(folder), 0)]
    while left:
        path, depth = left.pop()
        if depth > MAX_DEPTH:
            raise TooMuchError(f"folders within folders, more than {MAX_DEPTH} deep, the most")
        try:
            found = _read_folder(path)
        except OSError as error:
            if error.errno in GONE:
                continue
            raise TooMuchError(f"a folder that cannot be read ({error.strerror})") from error
        for name, is_folder, is_file in found:
            inner = f"{path}/{name}"
            if is_folder:
                left.append((inner, depth + 1))
            yield Entry(inner, is_file)


def _read_folder(path: str) -> list[tuple[str, bool, bool]]:
    """Names in a folder, and whether each is a folder or a file; OSError where it is a link."""
    opened = os.open(path, FOLDER)
    try:
        with os.scandir(opened) as found:
            return [
                (entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                for entry in found
            ]
    finally:
        os.close(opened)


def clear(folder: Path) -> None:
    """Delete what is in the folder."""
    for entry in folder.iterdir():
        remove(entry)


def remove(path: Path) -> None:
    """Delete a file or a folder, however deep it is (`shutil.rmtree` fails on folders that a submission nested).
    What cannot be deleted stays."""
    subprocess.run(["rm", "-rf", "--", str(path)], check=False, capture_output=True)
