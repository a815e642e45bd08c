"""Where prepared images are kept: in memory, or, where they are too many, in a file that is mapped into it."""

from __future__ import annotations

import math
import mmap
import os
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from autometa.core.errors import BudgetExhausted

DISK_SHARE = 0.8
"""Share of the free disk that is taken."""
MEMORY_SYSTEMS = {"tmpfs", "ramfs"}
"""File systems whose files lie in memory, so that nothing is gained by writing there."""
BLOCK_BYTES = 2**24
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Storage:
    """Room for a tensor: `memory_bytes` in memory; a larger one goes to a file in `folder` (None: the folder
    of temporary files, which `TMPDIR` names).

    The file has no name, so nothing is left of it when its tensor goes or the process ends, however it ends.
    Its pages are written back and dropped where memory gets short, and count for no memory budget.
    """

    memory_bytes: float = math.inf
    folder: Path | None = None

    def room_bytes(self) -> float:
        """Size of the largest tensor that there is room for now."""
        return max(self.memory_bytes, self._measure_disk()[0])

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor to be filled, on the CPU. BudgetExhausted where neither memory nor disk has room."""
        needed_bytes = math.prod(shape) * dtype.itemsize
        if needed_bytes <= max(self.memory_bytes, 0):
            return torch.empty(shape, dtype=dtype)
        room_bytes, why = self._measure_disk()
        if needed_bytes > room_bytes:
            raise self._build_error(needed_bytes, why)
        try:
            return _map_file(self._choose_folder(), needed_bytes, dtype).view(shape)
        except OSError as error:  # others write to the disk, too
            raise self._build_error(needed_bytes, f"{self._choose_folder()}: {error}") from error

    def _choose_folder(self) -> Path:
        return Path(tempfile.gettempdir()) if self.folder is None else self.folder

    def _measure_disk(self) -> tuple[int, str]:
        """Bytes that a file may have, and why no more."""
        try:
            place = self._choose_folder()
            if _file_system(place) in MEMORY_SYSTEMS:
                return 0, f"{place} lies in memory itself"
            free_bytes = int(DISK_SHARE * shutil.disk_usage(place).free)
        except OSError as error:
            return 0, str(error)
        most_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if most_bytes != resource.RLIM_INFINITY and most_bytes < free_bytes:
            return most_bytes, f"a file may have {most_bytes / 1e9:.3g} GB (ulimit -f)"
        return free_bytes, f"{place} has {free_bytes / 1e9:.3g} GB to spare"

    def _build_error(self, needed_bytes: int, why: str) -> BudgetExhausted:
        return BudgetExhausted(
            f"prepared images need {needed_bytes / 1e9:.3g} GB, memory has {max(self.memory_bytes, 0) / 1e9:.3g} "
            f"GB for them, and as a file they are too large: {why}; use fewer images, or set TMPDIR to a folder "
            "on a larger disk"
        )


MEMORY = Storage()
"""Everything in memory."""


def _map_file(folder: Path, size_bytes: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor [size_bytes / itemsize] over a new file without a name. OSError where the disk is full."""
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file.fileno(), size_bytes)
        pages = mmap.mmap(file.fileno(), size_bytes)
    pages.madvise(mmap.MADV_RANDOM)  # episodes draw single rows: what lies beside them is not worth reading
    return torch.frombuffer(pages, dtype=dtype)


def _reserve(fd: int, size_bytes: int) -> None:
    """Have the disk hold so many bytes for a new file: otherwise a full one is no error, but a signal that
    ends the process, when a page is written."""
    if sys.platform == "linux":
        os.posix_fallocate(fd, 0, size_bytes)
    else:
        for start in range(0, size_bytes, BLOCK_BYTES):
            os.write(fd, bytes(min(BLOCK_BYTES, size_bytes - start)))


def _file_system(folder: Path) -> str:
    """Type of the file system that a folder is on; empty where the system does not say (it is not Linux)."""
    if not MOUNTS.exists():
        return ""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            return rest.split()[0]
    return ""
