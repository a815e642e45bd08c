"""Memory that the processes of a submission hold together (Linux).

Counted are anonymous pages, and memory that is shared or lies in files of memory (`memfd`, `/dev/shm`), be it mapped
or only open. Pages that several of the processes share count once. Not counted are the images that ingestion hands
over, and pages of files on disk, which the kernel takes back when it needs memory. What a submission keeps in flight
between processes, or in segments of System V that nobody has mapped, is not seen. Nor are, without privileges, pages
of a file without a name of which another part is mapped and which no process has open.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Inode = tuple[int, int]
"""Device and number of a file."""
Item = TypeVar("Item")

SHARED_MEMORY = Path("/dev/shm")
PRIVATE_FOLDERS = ("tmp", "dev/shm")
"""Folders in memory that a bubblewrap sandbox has for itself."""
BLOCK_BYTES = 512
MAX_MAPPINGS = 20_000
"""Of one process. A program with PyTorch has one or two thousand."""
MAX_MAPPINGS_TOGETHER = 500_000
MAX_OPEN_FILES = 20_000
"""Of one process."""
CHECK_EVERY = 64
_MAPPING = re.compile(rb"[0-9a-f]+-[0-9a-f]+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)")


def inode_of(status: os.stat_result) -> Inode:
    """The identity of a file."""
    return status.st_dev, status.st_ino


class StoppedError(Exception):
    """Nobody waits for this look any more."""


class TooManyError(Exception):
    """A process has more than anybody looks at; the message says of what."""


class Look:
    """One look at what processes have mapped and hold open. It ends early where nobody waits for it, and where a
    process has so much that looking would take long: no program needs that, and a hostile one could keep ingestion
    busy with it. `stopped` is asked again and again; where it is true, everything here raises StoppedError.
    TooManyError where a process has too many mappings or open files, or all together have too many mappings."""

    def __init__(self, stopped: Callable[[], bool] = lambda: False) -> None:
        self._stopped = stopped
        self._mappings: dict[int, int] = {}
        self._nameless: dict[tuple[bytes, bytes], os.stat_result] = {}

    def check(self) -> None:
        """StoppedError where the look is to end."""
        if self._stopped():
            raise StoppedError

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until the look is to end."""
        for number, item in enumerate(items):
            if number % CHECK_EVERY == 0:
                self.check()
            yield item

    def lines(self, pid: int, name: str) -> Iterator[bytes]:
        """The lines of a file in `/proc`, read bit by bit. Only line feeds end them, which the kernel escapes in the
        names of processes and files. OSError where the process has ended or does not let others look."""
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - paths take longer, and this is done often
            for line in self.each(file):
                yield line.rstrip(b"\n")

    def open_files(self, pid: int, *, stranger: bool = False) -> Iterator[os.stat_result]:
        """The regular files that a process holds open; none where it has ended or cannot be read. A `stranger` may
        have as many as it likes."""
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as found:
            for number, entry in enumerate(self.each(found)):
                if number >= MAX_OPEN_FILES and not stranger:
                    raise TooManyError(f"had more than {MAX_OPEN_FILES} open files in a process, the most")
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield status

    def mapped_files(self, pid: int) -> Iterator[tuple[Inode, int]]:
        """Files without a name that a process has mapped, with their size: a mapping keeps the whole file, however
        little of it is mapped. None where the process has ended, or where the kernel does not let this one look,
        which takes privileges."""
        with contextlib.suppress(OSError):
            for number, line in enumerate(self.lines(pid, "maps")):
                self._count(pid, number + 1)
                if line.endswith(b" (deleted)"):
                    with contextlib.suppress(OSError):
                        status = self._status(pid, line)
                        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                            yield inode_of(status), status.st_blocks * BLOCK_BYTES

    def _count(self, pid: int, mappings: int) -> None:
        if mappings > MAX_MAPPINGS:
            raise TooManyError(f"had more than {MAX_MAPPINGS} mappings in a process, the most")
        self._mappings[pid] = mappings
        if mappings % CHECK_EVERY == 0 and sum(self._mappings.values()) > MAX_MAPPINGS_TOGETHER:
            raise TooManyError(f"had more than {MAX_MAPPINGS_TOGETHER} mappings in its processes, the most")

    def _status(self, pid: int, line: bytes) -> os.stat_result:
        """Of the file that this line of `maps` is about. A file is asked once, however many processes map it."""
        bounds, _, _, device, number, _ = line.split(None, 5)
        file = (device, number)
        if file not in self._nameless:
            start, end = (int(bound, 16) for bound in bounds.split(b"-"))
            self._nameless[file] = os.stat(f"/proc/{pid}/map_files/{start:x}-{end:x}")  # noqa: PTH116
        return self._nameless[file]


class MemoryMeter:
    """`given` are files that ingestion handed over; `private`: the processes have their own folders in memory."""

    def __init__(self, given: dict[Inode, int], *, private: bool) -> None:
        self._given = given
        self._private = private
        self._there_before = {inode for inode, _ in _named_files()}
        self._devices = {_device_of_memory()}
        with contextlib.suppress(OSError):
            self._devices.add(SHARED_MEMORY.stat().st_dev)

    def used_bytes(self, pids: Iterable[int], limit_bytes: int | None, look: Look | None = None) -> int:
        """The memory of these processes; where it is surely below the limit, an upper bound, which costs less.
        TooManyError, StoppedError: see `Look`."""
        pids, look = list(pids), look or Look()
        bound = self._bound_bytes(pids, look)
        return bound if limit_bytes is None or bound <= limit_bytes else self._exact_bytes(pids, look)

    def _bound_bytes(self, pids: list[int], look: Look) -> int:
        mapped = sum(_resident_bytes(pid, look) for pid in look.each(pids))
        files = sum({**self._held_files(pids, look), **self._named_since(look)}.values())
        return mapped + files + self._private_bytes(pids)

    def _exact_bytes(self, pids: list[int], look: Look) -> int:
        anonymous = 0
        files: dict[Inode, int] = defaultdict(int)
        for pid in pids:
            try:
                anonymous += _proportional_anonymous_bytes(pid, look)
                for inode, size in self._mapped_files(pid, look):
                    files[inode] += size
            except PermissionError:  # a process that made itself unreadable: what everyone can see of it
                anonymous += _resident_bytes(pid, look)
            except (FileNotFoundError, ProcessLookupError):
                continue
        held, named = self._held_files(pids, look), self._named_since(look)
        elsewhere = {inode: size for inode, size in named.items() if inode not in held}
        for inode, size in {**held, **_not_held_elsewhere(elsewhere, pids, look)}.items():
            files[inode] = max(files[inode], size)
        return anonymous + sum(files.values()) + self._private_bytes(pids)

    def _held_files(self, pids: list[int], look: Look) -> dict[Inode, int]:
        """Files in memory that the processes hold open, or keep by a mapping alone, with their size."""
        found = {}
        for pid in pids:
            for inode, size in look.mapped_files(pid):
                if inode[0] in self._devices and inode not in self._given:
                    found[inode] = size
            for status in look.open_files(pid):
                if status.st_dev in self._devices and inode_of(status) not in self._given:
                    found[inode_of(status)] = status.st_blocks * BLOCK_BYTES
        return found

    def _mapped_files(self, pid: int, look: Look) -> Iterator[tuple[Inode, int]]:
        """Proportional sizes of the mapped files in memory, without private changes, which are anonymous pages."""
        inode, size = (0, 0), 0
        for line in look.lines(pid, "smaps"):
            if found := _MAPPING.match(line):
                device = os.makedev(int(found[1], 16), int(found[2], 16))
                inode, size = (device, int(found[3])), 0
            elif line.startswith(b"Pss:"):
                size = _kilobytes(line)
            elif line.startswith(b"Anonymous:") and inode[0] in self._devices and inode not in self._given:
                yield inode, max(size - _kilobytes(line), 0)

    def _named_since(self, look: Look) -> dict[Inode, int]:
        """Files of this user that came into `/dev/shm` since the meter was made."""
        if self._private:
            return {}
        return {inode: size for inode, size in look.each(_named_files()) if inode not in self._there_before}

    def _private_bytes(self, pids: list[int]) -> int:
        """What lies in the folders in memory of the sandbox, open or not."""
        if not self._private:
            return 0
        used: dict[int, int] = {}
        for pid in pids:
            for folder in PRIVATE_FOLDERS:
                with contextlib.suppress(OSError):
                    device = Path(f"/proc/{pid}/root", folder).stat().st_dev
                    if device != Path("/", folder).stat().st_dev:
                        room = os.statvfs(f"/proc/{pid}/root/{folder}")
                        used[device] = (room.f_blocks - room.f_bfree) * room.f_frsize
        return sum(used.values())


def _named_files() -> Iterator[tuple[Inode, int]]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(SHARED_MEMORY):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    yield inode_of(status), status.st_blocks * BLOCK_BYTES


def _not_held_elsewhere(files: dict[Inode, int], pids: list[int], look: Look) -> dict[Inode, int]:
    """Those of the files that no other process has open: they are left to be of the submission."""
    left = dict(files)
    if left:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) not in pids:
                for status in look.open_files(int(process.name), stranger=True):
                    left.pop(inode_of(status), None)
    return left


def _device_of_memory() -> int:
    fd = os.memfd_create("probe")
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _resident_bytes(pid: int, look: Look) -> int:
    """Anonymous and shared memory that a process has mapped, by the cheap counters of the kernel."""
    try:
        lines = list(look.lines(pid, "status"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(_kilobytes(line) for line in lines if line.startswith((b"RssAnon:", b"RssShmem:")))


def _proportional_anonymous_bytes(pid: int, look: Look) -> int:
    return sum(_kilobytes(line) for line in look.lines(pid, "smaps_rollup") if line.startswith(b"Pss_Anon:"))


def _kilobytes(line: bytes) -> int:
    return int(line.split()[1]) * 1024
