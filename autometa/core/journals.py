"""Journals: files of JSON lines. A run appends to them, and a later run can continue them. And small files of text
that are always whole.

What a run promises to keep is on the disk, not only on its way there, when a function returns: a file is flushed
before it gets its name, and the folder after that, so that a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autometa.core.errors import UnwritableFile

CHECKSUM = "checksum"
"""Of the content of a file or a line, in the same."""
NO_FLUSHING = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EISDIR)
"""What flushing fails with on file systems that have none: they keep their own promises."""


def flush(path: Path) -> None:
    """Wait until a file or a folder is on the disk. OSError where it cannot be, as on a full or broken disk."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written, but not read
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_FLUSHING:
            raise
    finally:
        os.close(opened)


@contextlib.contextmanager
def replacing(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """Another name to write a file under, which is renamed at the end of the block: `file` is there whole, or as it
    was before; with `durable`, after a power cut too. UnwritableFile where that fails; whatever fails, no half file
    is left."""
    partial = file.with_name(
        f".{file.name}.{threading.get_native_id()}"
    )  # which no other process has, either
    try:
        yield partial
        if durable:
            flush(partial)
        partial.replace(file)
        if durable:
            flush(file.parent)
    except OSError as error:
        _forget(partial)
        raise UnwritableFile(file, error) from error
    except BaseException:
        _forget(partial)
        raise


def _forget(partial: Path) -> None:
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def write_whole(file: Path, text: str, *, durable: bool = True) -> None:
    """Write a file of text atomically: it is there whole, or as it was before. UnwritableFile where it cannot be."""
    with replacing(file, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8")


def append(file: Path, record: dict[str, Any], *, durable: bool = False) -> None:
    """Add a line to a journal, at once, so that a kill loses none that is done; with `durable`, a power cut neither.

    UnwritableFile where it cannot be written; what was written of the line is cut off then, as further ones would be
    lost behind half a line.
    """
    written = json.loads(
        json.dumps(record)
    )  # as it is read: keys are text, whose order is another than that of numbers
    try:
        with file.open("ab", buffering=0) as journal:
            before = journal.seek(0, os.SEEK_END)
            try:
                line = json.dumps(written | {CHECKSUM: checksum_of(written)}) + "\n"
                _write_all(journal.fileno(), line.encode())
                if durable:
                    os.fsync(journal.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    journal.truncate(before)
                raise
    except OSError as error:
        raise UnwritableFile(file, error) from error


def _write_all(opened: int, content: bytes) -> None:
    """A nearly full disk takes a part of what is written to it, without an error."""
    while content:
        content = content[os.write(opened, content) :]


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a journal, without damaged lines; none where there is no such file."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [record for line in lines if (record := parse(line)) is not None]


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line of a journal; None where it is not what was written. Lines of earlier versions have no
    checksum."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    told = record.pop(CHECKSUM, None)
    return record if told is None or told == checksum_of(record) else None


def checksum_of(content: Any) -> str:
    """Of JSON values, however they are written."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def cut_damaged_end(file: Path) -> int:
    """Cut a journal before its first damaged line; returns how many bytes were removed.

    A run that is killed while it writes can leave half a line. A whole line is a JSON object that ends in a newline
    and has the content that was written. Returns 0 if nothing was wrong or the file does not exist.
    """
    if not file.exists():
        return 0
    content, whole = file.read_bytes(), 0
    for line in content.split(b"\n")[:-1]:
        if parse(line) is None:
            break
        whole += len(line) + 1
    if whole < len(content):
        with file.open("rb+") as stream:
            stream.truncate(whole)
    return len(content) - whole


def damaged_inside(file: Path) -> int | None:
    """The number, from 1, of the first damaged line of a journal that a whole one follows, which no kill can leave;
    None where there is none."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    damaged = [number for number, line in enumerate(lines, start=1) if parse(line) is None]
    return damaged[0] if damaged and damaged[0] + len(damaged) <= len(lines) else None


def tidy_folder(folder: Path, name: str, report: Callable[[str], None]) -> None:
    """Cut off what a kill has left half written at the end of the journal called `name`; half files go too."""
    for unfinished in folder.glob(".*.[0-9]*"):  # see `replacing`
        unfinished.unlink()
    if cut := cut_damaged_end(folder / name):
        report(f"{name}: its damaged end is cut off ({cut} bytes)")


class Dispensable:
    """Logs that a run can do without: where one cannot be written, the run goes on, and `report` gets one line."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._told: set[Path] = set()

    @contextlib.contextmanager
    def writing(self, file: Path) -> Iterator[None]:
        """Around writing a file."""
        try:
            yield
        except OSError as error:
            if file not in self._told:
                self._told.add(file)
                self._report(f"{error}; the run goes on without it")
