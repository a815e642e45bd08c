"""Attacks that keep more on disk than is allowed, unseen by a meter, or that make it fail; each waits for its end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import hoards

FILE_BYTES = 100 * 2**20
FILES = 500
HOLD_S = 60
LONG, LONGEST_PATH = 250, 4090
RACE_S = 3.0


def write(name: str) -> int:
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    for _ in range(FILE_BYTES // 2**20):
        os.write(fd, bytes(2**20))
    return fd


def one_file() -> None:
    write("large")
    time.sleep(HOLD_S)


def many_files() -> None:
    for number in range(FILES):
        Path(f"file-{number}").touch()
    time.sleep(HOLD_S)


def file_that_is_only_mapped() -> None:
    """It has no name, nothing has it open, and one page of it is mapped."""
    fd = write("hidden")
    Path("hidden").unlink()
    hoards.mmap_of(fd, 4096)
    os.close(fd)
    time.sleep(HOLD_S)


def name_that_is_too_long() -> None:
    """A file whose path is longer than a path may be, in a folder whose path is not: it cannot be asked for."""
    length, at = len(str(Path.cwd())), os.open(".", os.O_RDONLY)
    while length + 2 < LONGEST_PATH - 2:
        name = "d" * min(LONG, LONGEST_PATH - 2 - length - 1)
        os.mkdir(name, dir_fd=at)
        at, length = os.open(name, os.O_RDONLY, dir_fd=at), length + 1 + len(name)
    os.close(os.open("f" * LONG, os.O_CREAT | os.O_WRONLY, dir_fd=at))
    time.sleep(HOLD_S)


def folder_that_is_a_link_now_and_then() -> None:
    """A folder changes places with a link to the root, while it is looked at. Nothing is too much here."""
    Path("other").symlink_to("/")
    Path("swapped").mkdir()
    Path("swapped", "file").touch()
    over = threading.Event()
    swapper = threading.Thread(target=swap, args=(over,))
    swapper.start()
    time.sleep(RACE_S)
    over.set()
    swapper.join()


def swap(over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError):
            Path("swapped").rename("aside")
            Path("other").rename("swapped")
            Path("aside").rename("other")


LITTER: list[Callable[[], None]] = [
    one_file,
    many_files,
    file_that_is_only_mapped,
    name_that_is_too_long,
    folder_that_is_a_link_now_and_then,
]
