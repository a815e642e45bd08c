"""Decoded images on disk: one file per dataset, found by content, checked before use, trimmed to a size.

Runs may share a cache. A file in use is locked (`flock`) as long as its images are mapped, so that no other run trims
it. A file is written under another name and renamed when it is complete, so that a kill leaves no half file. After a
power cut it may have its size, but not its content: what was written before the machine has started is read once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ingestion.cgroups import count_cores

CAP_BYTES = 20 * 2**30
"""Above this size, the least recently used files are deleted."""
DIGEST_BLOCK_BYTES = 8 * 2**20
WRITING_PREFIX = "writing-"
CHECKSUM = "checksum"
BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class CacheNotes:
    """What is saved beside an array. `broken`: row → why it could not be decoded; `digest`: of the array's file;
    `stamp`: inode, size and times (ns) of the file when the digest was last known to hold, and `boot`, the start of
    the machine before that; `flat`: images of one colour."""

    broken: dict[str, str]
    digest: str
    stamp: list[int]
    flat: list[int] = field(default_factory=list)
    boot: str = ""


@dataclass(frozen=True)
class CachedImages:
    """`images`, uint8 [n, 3, px, px], map `file`, which no run trims until they are freed. `broken`: row of the
    dataset → why it is not among them. `flat`: images, by their place in the array, of one colour."""

    images: Pixels
    file: Path
    broken: dict[int, str]
    flat: list[int]


class ImageCache:
    """The cache in one folder, which must exist. All methods raise OSError where the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_there(self, key: str) -> bool:
        """Whether there are files for this key, be they sound or not."""
        return self._array(key).exists() and self._notes(key).exists()

    def find(self, key: str) -> CachedImages | None:
        """The images of this key; None if there are none, or if the file is not what was written."""
        try:
            stream = self._array(key).open("rb")
        except (FileNotFoundError, PermissionError):
            return None
        with stream:
            _lock(stream.fileno(), fcntl.LOCK_SH)
            if not _is_still(self._array(key), stream):
                return None  # trimmed just now
            notes = self._sound_notes(key, stream)
            if notes is None:
                return None
            with contextlib.suppress(PermissionError):
                os.utime(self._notes(key))  # not of the array, whose times tell whether it was changed
            broken = {int(row): reason for row, reason in notes.broken.items()}
            return CachedImages(_mapped(stream), self._array(key), broken, notes.flat)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder to write in. It is deleted at the end; what a killed run leaves there is trimmed."""
        with contextlib.ExitStack() as held:
            with _locked_folder(self._folder):  # or else it could be trimmed before it is locked
                folder = Path(
                    held.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix=WRITING_PREFIX))
                )
                held.enter_context(_locked_folder(folder))
            yield folder

    def place(self, key: str, array: Path, broken: dict[int, str], flat: list[int]) -> CachedImages:
        """Move the complete file `array` (npy) into the cache, unless another run has done so in the meantime."""
        digest = file_digest(array)
        with _locked_folder(self._folder):
            found = self.find(key)
            if found is None:
                array.replace(self._array(key))
                reasons = {str(row): reason for row, reason in broken.items()}
                stamp = _stamp(self._array(key).stat())
                self._write_notes(key, CacheNotes(reasons, digest, stamp, flat, boot_id()))
                found = self.find(key)
        if found is None:
            raise OSError(errno.EIO, f"{self._array(key).name} is not what was just written")
        return found

    def trim(self) -> None:
        """Delete the least recently used files above the cap that no run uses, and what killed runs left."""
        with _locked_folder(self._folder):
            for left in self._folder.glob(f"{WRITING_PREFIX}*"):
                with _opened(left, os.O_RDONLY) as fd:
                    if fd is not None and _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(left, ignore_errors=True)
            files = [(file, size, used) for file in self._folder.glob("*.npy") for size, used in _usage(file)]
            excess = sum(size for _, size, _ in files) - CAP_BYTES
            for file, size, _ in sorted(files, key=lambda entry: entry[2]):
                if excess <= 0:
                    return
                with _opened(file, os.O_RDWR) as fd:
                    if fd is not None and _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        file.with_suffix(".json").unlink(missing_ok=True)
                        file.unlink(missing_ok=True)
                        excess -= size

    def _sound_notes(self, key: str, stream: BinaryIO) -> CacheNotes | None:
        """The notes, if the array is what was written: its file is unchanged, or else its digest is the same."""
        try:
            content = json.loads(self._notes(key).read_text(encoding="utf-8"))
            told = content.pop(CHECKSUM, None)  # those of earlier versions have none
            notes = CacheNotes(**content)
        except (FileNotFoundError, PermissionError, ValueError, TypeError, AttributeError):
            return None
        if told is not None and told != _checksum(notes):
            return None
        stamp = _stamp(os.fstat(stream.fileno()))
        if notes.stamp != stamp or notes.boot != boot_id():
            if file_digest(self._array(key)) != notes.digest:
                return None
            with contextlib.suppress(PermissionError):  # a cache of another user
                self._write_notes(key, replace(notes, stamp=stamp, boot=boot_id()))
        return notes

    def _write_notes(self, key: str, notes: CacheNotes) -> None:
        writing = self._folder / f"notes-{uuid.uuid4().hex}"
        try:
            content = asdict(notes) | {CHECKSUM: _checksum(notes)}
            writing.write_text(json.dumps(content), encoding="utf-8")
            writing.replace(self._notes(key))
        finally:
            writing.unlink(missing_ok=True)

    def _array(self, key: str) -> Path:
        return self._folder / f"{key}.npy"

    def _notes(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _checksum(notes: CacheNotes) -> str:
    return hashlib.blake2b(json.dumps(asdict(notes), sort_keys=True).encode(), digest_size=8).hexdigest()


@cache
def boot_id() -> str:
    """What tells one start of the machine from the next; empty where the system does not say."""
    try:
        return BOOT_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def file_digest(file: Path) -> str:
    """Digest of the content, of blocks at once on all cores."""
    with file.open("rb") as stream, ThreadPoolExecutor(count_cores()) as pool:
        fd, size = stream.fileno(), os.fstat(stream.fileno()).st_size

        def of_block(start: int) -> bytes:
            return hashlib.blake2b(os.pread(fd, DIGEST_BLOCK_BYTES, start), digest_size=16).digest()

        digest = hashlib.blake2b(size.to_bytes(8, "big"), digest_size=16)
        for part in pool.map(of_block, range(0, size, DIGEST_BLOCK_BYTES)):
            digest.update(part)
    return digest.hexdigest()


def _stamp(status: os.stat_result) -> list[int]:
    """What changes whenever the file does: no program can set the time of the last change of a file (ctime)."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _mapped(stream: BinaryIO) -> Pixels:
    """The array of a sound npy file. The mapping keeps the open file, and so its lock, until the array is freed."""
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    assert dtype == np.uint8 and len(shape) == 4
    if not math.prod(shape):
        return np.empty(shape, dtype=np.uint8)
    return np.memmap(stream, np.uint8, "r", stream.tell(), shape)


def _is_still(file: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _usage(file: Path) -> Iterator[tuple[int, float]]:
    """Size and time of last use, or nothing if the file is gone."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return
    with contextlib.suppress(FileNotFoundError):
        yield size, file.with_suffix(".json").stat().st_mtime
        return
    yield size, 0.0


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int | None]:
    try:
        fd = os.open(path, flags)
    except OSError:
        yield None  # gone, or of another user
        return
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """One run at a time in this block."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        _lock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, kind: int) -> bool:
    """Whether the file is locked now. Some network file systems have no locks: nothing is trimmed there."""
    try:
        fcntl.flock(fd, kind)
    except OSError:
        return False
    return True
