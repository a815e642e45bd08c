"""Zip files that others have made: everything is checked before anything is written.

A zip file has a table of its files at its end, and the data of each before it. Programs differ in what they read
where the two do not fit together, so such a file is refused.
"""

from __future__ import annotations

import math
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from ingestion.errors import InputError
from ingestion.member_names import clash_trouble, name_trouble, show_name

MAX_FILES = 20_000
MAX_UNPACKED_BYTES = 8 * 2**30
MOST_RATIO = 100
"""By which weights and texts do not shrink; zeros do."""
BOMB_BYTES = 2**28
"""Of files that shrink by more than that ratio; below it, they do no harm."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
OTHER_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError,
)  # fmt: skip
"""What Python's `zipfile` raises where a file is damaged."""
_LOCAL = b"PK\x03\x04"
_LOCAL_BYTES = 30
_END, _END_BYTES, _MOST_COMMENT = b"PK\x05\x06", 22, 2**16


def unpack(archive: Path, folder: Path, deadline: float = math.inf) -> None:
    """Unpack a zip file into a new folder. InputError names the file within it and the fix, where it is damaged,
    unsafe, or not the same on all systems; nothing is written then. InputError, too, where it takes until `deadline`
    (monotonic seconds)."""
    where = f"submission {archive}"
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
            for trouble in (
                _outside(archive, members), _size_trouble(members), _names_trouble(members),
                _overlap(members, bundle.start_dir),
            ):  # fmt: skip
                if trouble:
                    raise InputError(f"{where}: {trouble}")
            _check_room(where, folder, sum(member.file_size for member in members))
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                if time.monotonic() >= deadline:
                    raise InputError(f"{where}: takes all of the time budget to unpack; leave files out")
                bundle.extract(member, folder)
    except UNREADABLE as error:
        raise InputError(f"{where}: not a readable zip file ({_reason(archive, error)})") from error
    except OSError as error:
        raise InputError(f"{where}: cannot be unpacked ({error.strerror or error})") from error


def _reason(archive: Path, error: Exception) -> str:
    """Why, and what to do."""
    start = _read(archive, 0, 262)
    for magic, kind in OTHER_ARCHIVES.items():
        if start.startswith(magic):
            return f"it is a {kind} archive; pack the files as zip"
    if start[257:262] == b"ustar":
        return "it is a tar archive; pack the files as zip"
    text = " ".join(show_name(str(error)).split())
    if start.startswith(_LOCAL):
        return f"{text}; it is cut off or damaged: pack it again"
    return f"{text}; give a folder, or pack its files as zip"


def _outside(archive: Path, members: Sequence[zipfile.ZipInfo]) -> str:
    """Bytes before or behind the archive: another program may read other files from it."""
    size = archive.stat().st_size
    end = _read(archive, max(size - _END_BYTES - _MOST_COMMENT, 0), _END_BYTES + _MOST_COMMENT)
    place = end.rfind(_END)
    (comment,) = struct.unpack_from("<H", end, place + 20)
    behind = len(end) - (place + _END_BYTES + comment)
    if behind:
        return f"{behind} bytes lie behind its end; pack it again"
    if members and min(member.header_offset for member in members) > 0:
        return "other data lie before its first file; pack it again"
    return ""


def _read(file: Path, start: int, size: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(size)


def _size_trouble(members: Sequence[zipfile.ZipInfo]) -> str:
    if len(members) > MAX_FILES:
        return f"{len(members)} files, at most {MAX_FILES}; leave out what the submission does not need"
    total = sum(member.file_size for member in members)
    if total > MAX_UNPACKED_BYTES:
        return f"unpacks to {total} bytes, to more than {MAX_UNPACKED_BYTES} bytes; leave files out"
    swollen = [member for member in members if member.file_size > MOST_RATIO * member.compress_size]
    if sum(member.file_size for member in swollen) > BOMB_BYTES:
        largest = max(swollen, key=lambda member: member.file_size)
        return (
            f"`{show_name(largest.filename)}` unpacks to {largest.file_size} bytes from {largest.compress_size}, "
            "as a zip bomb does; leave it out, or make it when it is needed"
        )
    return ""


def _names_trouble(members: Sequence[zipfile.ZipInfo]) -> str:
    for member in members:
        name = getattr(member, "orig_filename", member.filename)  # `filename` ends before a NUL
        if trouble := name_trouble(name) or _kind_trouble(member):
            return f"`{show_name(name)}` {trouble}"
    return clash_trouble(member.filename for member in members if not member.is_dir())


def _kind_trouble(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link; put the file in"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder; leave it out"
    if member.flag_bits & 0x41:
        return "is encrypted; pack it without a password"
    if member.compress_type not in METHODS:
        return f"is compressed by method {member.compress_type}; pack it with the usual one (deflate)"
    return ""


def _overlap(members: Sequence[zipfile.ZipInfo], end: int) -> str:
    """Two files that share data, which is how a small zip file holds a lot."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    ends = [*(member.header_offset for member in ordered[1:]), end][: len(ordered)]
    for member, next_start in zip(ordered, ends, strict=True):
        if member.header_offset + _LOCAL_BYTES + member.compress_size > next_start:
            return f"the data of `{show_name(member.filename)}` and of what follows overlap; pack it again"
    return ""


def _check_room(where: str, folder: Path, needed: int) -> None:
    """InputError where the disk has no room."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"{where}: unpacks to {needed} bytes, but {folder.parent} has {free} bytes free; set TMPDIR to a folder "
            "on a larger disk"
        )
