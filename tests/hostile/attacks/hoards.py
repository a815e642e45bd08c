"""Attacks that hold more memory than is allowed, where a meter may not see it. Each holds it for a while."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import strays
from calls import call

HOARD_BYTES = 600 * 2**20
SET_NAME = 15
HOLD_S = 60


def fill(fd: int) -> None:
    for _ in range(HOARD_BYTES // 2**20):
        os.write(fd, bytes(2**20))


def forge_name_of_process() -> None:
    """The name stands in a file of lines that the watchdog reads; a form feed ends a line for Python."""
    call("prctl", SET_NAME, b"\x0cRssAnon:", 0, 0, 0)
    held = bytearray(HOARD_BYTES)
    held[::4096] = bytes(len(held[::4096]))
    time.sleep(HOLD_S)


def forge_name_of_file() -> None:
    """The same for the name of a file in memory, in the list of what is mapped: it says that another file begins."""
    fd = os.memfd_create("x\x0c0-1 r 0 99:99 7")
    os.ftruncate(fd, HOARD_BYTES)
    held = mmap_of(fd, HOARD_BYTES)
    os.close(fd)
    ctypes.memset(ctypes.c_void_p(held), 1, HOARD_BYTES)
    time.sleep(HOLD_S)


def map_one_page() -> None:
    """Nothing is open, and of the file in memory one page is mapped."""
    fd = os.memfd_create("hoard")
    fill(fd)
    mmap_of(fd, 4096)
    os.close(fd)
    time.sleep(HOLD_S)


def mmap_of(fd: int, size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE) -> int:
    """Address of a shared mapping, by the C library: Python keeps a descriptor of its own."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    arguments = [ctypes.c_size_t(size), protection, mmap.MAP_SHARED, fd, ctypes.c_long(0)]
    address = int(function(None, *arguments) or 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return address


def leave_it_to_a_stray() -> None:
    """Another program holds it, without environment, outside of the family."""
    beat = Path(os.environ["METADL_MODEL_DIR"]) / "beat"
    strays.detach(lambda: strays.beat_without_environment(beat, HOARD_BYTES))
    time.sleep(HOLD_S)


HOARDS: list[Callable[[], None]] = [
    forge_name_of_process,
    forge_name_of_file,
    map_one_page,
    leave_it_to_a_stray,
]
