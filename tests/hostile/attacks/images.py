"""Attacks on the images of the tasks, in memory that ingestion fills: who could shorten it would end ingestion."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from pathlib import Path

from calls import call
from hoards import mmap_of
from reporting import Attack

PAGE = 4096
KEEP_SIZE_AND_PUNCH = 3
MADV_REMOVE = 9
SEALS, SEAL_WRITE = 1033, 8


def descriptor() -> int:
    """That of the images."""
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink() and "memfd:images" in str(entry.readlink()):
            return int(entry.name)
    raise AssertionError("found no images")


def path() -> str:
    return f"/proc/self/fd/{descriptor()}"


def reopened() -> int:
    return os.open(path(), os.O_RDWR)


def address() -> int:
    """Of a mapping of the first page, for reading."""
    return mmap_of(descriptor(), PAGE, mmap.PROT_READ)


def write(fd: int) -> str:
    os.write(fd, b"zero")
    return "written"


def truncate(target: int | str, size: int) -> str:
    os.truncate(target, size)
    return "resized"


def punch(fd: int) -> str:
    call("fallocate", fd, KEEP_SIZE_AND_PUNCH, 0, PAGE)
    return "punched"


def grow() -> str:
    fd = reopened()
    before = os.fstat(fd).st_size
    os.posix_fallocate(fd, before, PAGE)
    return "grown"


def map_for_writing() -> str:
    mmap_of(reopened(), PAGE)
    return "mapped"


def unprotect() -> str:
    call("mprotect", ctypes.c_void_p(address()), PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
    return "unprotected"


def write_past_protection() -> str:
    """As debuggers do."""
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(address())
        memory.write(b"zero")
    return "written"


def remove_pages() -> str:
    call("madvise", ctypes.c_void_p(address()), PAGE, MADV_REMOVE)
    return "removed"


def seal() -> str:
    """Ingestion could not write either."""
    fcntl.fcntl(reopened(), SEALS, SEAL_WRITE)
    return "sealed"


ATTACKS: dict[str, Attack] = {
    "shortened by descriptor": lambda: truncate(descriptor(), 0),
    "lengthened by descriptor": lambda: truncate(descriptor(), 2**30),
    "shortened by name": lambda: truncate(path(), 0),
    "written by name": lambda: write(reopened()),
    "hole punched": lambda: punch(reopened()),
    "grown by allocation": grow,
    "mapped for writing": map_for_writing,
    "protection lifted": unprotect,
    "written past the protection": write_past_protection,
    "pages removed": remove_pages,
    "sealed": seal,
}
