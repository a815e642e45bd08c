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
from collections.abc import Iterable, Iterator
from pathlib import Path

Inode = tuple[int, int]
"""Device and number of a file."""

SHARED_MEMORY = Path("/dev/shm")
PRIVATE_FOLDERS = ("tmp", "dev/shm")
"""Folders in memory that a bubblewrap sandbox has for itself."""
BLOCK_BYTES = 512
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)")


def inode_of(status: os.stat_result) -> Inode:
    """The identity of a file."""
    return status.st_dev, status.st_ino


class MemoryMeter:
    """`given` are files that ingestion handed over; `private`: the processes have their own folders in memory."""

    def __init__(self, given: dict[Inode, int], *, private: bool) -> None:
        self._given = given
        self._private = private
        self._there_before = {inode for inode, _ in _named_files()}
        self._devices = {_device_of_memory()}
        with contextlib.suppress(OSError):
            self._devices.add(SHARED_MEMORY.stat().st_dev)

    def used_bytes(self, pids: Iterable[int], limit_bytes: int | None) -> int:
        """The memory of these processes; where it is surely below the limit, an upper bound, which costs less."""
        pids = list(pids)
        bound = self._bound_bytes(pids)
        return bound if limit_bytes is None or bound <= limit_bytes else self._exact_bytes(pids)

    def _bound_bytes(self, pids: list[int]) -> int:
        mapped = sum(_resident_bytes(pid) for pid in pids)
        files = sum({**self._held_files(pids), **self._named_since()}.values())
        return mapped + files + self._private_bytes(pids)

    def _exact_bytes(self, pids: list[int]) -> int:
        anonymous = 0
        files: dict[Inode, int] = defaultdict(int)
        for pid in pids:
            try:
                anonymous += _proportional_anonymous_bytes(pid)
                for inode, size in self._mapped_files(pid):
                    files[inode] += size
            except PermissionError:  # a process that made itself unreadable: what everyone can see of it
                anonymous += _resident_bytes(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        held = self._held_files(pids)
        elsewhere = self._named_since().keys() - held.keys()
        for inode, size in {**held, **_not_held_elsewhere(self._named_since(), elsewhere, pids)}.items():
            files[inode] = max(files[inode], size)
        return anonymous + sum(files.values()) + self._private_bytes(pids)

    def _held_files(self, pids: list[int]) -> dict[Inode, int]:
        """Files in memory that the processes hold open, or keep by a mapping alone, with their size."""
        found = {}
        for pid in pids:
            for inode, size in mapped_files(pid):
                if inode[0] in self._devices and inode not in self._given:
                    found[inode] = size
            for status in open_files(pid):
                if status.st_dev in self._devices and inode_of(status) not in self._given:
                    found[inode_of(status)] = status.st_blocks * BLOCK_BYTES
        return found

    def _mapped_files(self, pid: int) -> Iterator[tuple[Inode, int]]:
        """Proportional sizes of the mapped files in memory, without private changes, which are anonymous pages."""
        inode, size = (0, 0), 0
        for line in _lines(pid, "smaps"):
            if found := _MAPPING.match(line):
                device = os.makedev(int(found[1], 16), int(found[2], 16))
                inode, size = (device, int(found[3])), 0
            elif line.startswith("Pss:"):
                size = _kilobytes(line)
            elif line.startswith("Anonymous:") and inode[0] in self._devices and inode not in self._given:
                yield inode, max(size - _kilobytes(line), 0)

    def _named_since(self) -> dict[Inode, int]:
        """Files of this user that came into `/dev/shm` since the meter was made."""
        if self._private:
            return {}
        return {inode: size for inode, size in _named_files() if inode not in self._there_before}

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


def open_files(pid: int) -> Iterator[os.stat_result]:
    """The regular files that a process holds open; none where it has ended or cannot be read."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield status


def mapped_files(pid: int) -> Iterator[tuple[Inode, int]]:
    """Files without a name that a process has mapped, with their size: a mapping keeps the whole file, however little
    of it is mapped. None where the process has ended, or where the kernel does not let this one look, which takes
    privileges."""
    with contextlib.suppress(OSError):
        for line in _lines(pid, "maps"):
            if line.endswith(" (deleted)"):
                start, end = (int(bound, 16) for bound in line.split(" ", 1)[0].split("-"))
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{pid}/map_files/{start:x}-{end:x}").stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        yield inode_of(status), status.st_blocks * BLOCK_BYTES


def _named_files() -> Iterator[tuple[Inode, int]]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(SHARED_MEMORY):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    yield inode_of(status), status.st_blocks * BLOCK_BYTES


def _not_held_elsewhere(
    files: dict[Inode, int], wanted: Iterable[Inode], pids: list[int]
) -> dict[Inode, int]:
    """Those of the `wanted` files that no other process has open: they are left to be of the submission."""
    left = {inode: files[inode] for inode in wanted}
    if left:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) not in pids:
                for status in open_files(int(process.name)):
                    left.pop(inode_of(status), None)
    return left


def _device_of_memory() -> int:
    fd = os.memfd_create("probe")
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _resident_bytes(pid: int) -> int:
    """Anonymous and shared memory that a process has mapped, by the cheap counters of the kernel."""
    try:
        lines = _lines(pid, "status")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(_kilobytes(line) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _proportional_anonymous_bytes(pid: int) -> int:
    return sum(_kilobytes(line) for line in _lines(pid, "smaps_rollup") if line.startswith("Pss_Anon:"))


def _lines(pid: int, name: str) -> list[str]:
    """The lines of a file in `/proc`. Only line feeds end them, which the kernel escapes in the names of processes
    and files; `splitlines` knows other ends, and a name could forge lines with them."""
    return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace").split("\n")


def _kilobytes(line: str) -> int:
    return int(line.split()[1]) * 1024
