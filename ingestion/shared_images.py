"""Images that ingestion hands to a submission: of the tasks in memory, of meta-training in files.

A submission may open what it holds anew, under `/proc/self/fd`, and a bubblewrap sandbox does not refuse that. So

- memory is sealed (Linux): nobody can change its size, which would end ingestion by a signal at its next write, and
  nobody but ingestion, which has mapped it before, can write to it;
- a whole file of the cache, which later runs trust, is mounted read-only under bubblewrap, and no descriptor of it is
  given away; Landlock refuses to open it anew; where it cannot, the submission gets a copy;
- classes of a dataset are a copy of their own, without a name.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.channel import map_array
from ingestion.prepare import Prepared
from ingestion.process import LaunchPlan
from ingestion.sandbox import may_share_files, mount_point
from ingestion.splits import Part

_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; only newer versions of Python name it
COPY_ROWS = 512


class SharedImages:
    """A buffer of `n_bytes` for uint8 images. `fd` is for the child, which can only read and map it."""

    def __init__(self, n_bytes: int) -> None:
        writable, self.fd = _memory() if sys.platform == "linux" else _temporary_file()
        try:
            os.ftruncate(writable, n_bytes)
            self._buffer = map_array(writable, (n_bytes,), writable=True)
            if sys.platform == "linux":
                _seal(writable)
        finally:
            os.close(writable)

    def put(self, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> list[int]:
        """Copy images [n, 3, px, px] of these rows to the start; returns their shape."""
        shape = [len(rows), *images.shape[1:]]
        flat = self._buffer[: math.prod(shape)].reshape(shape)
        np.take(images, rows, axis=0, out=flat, mode="clip")
        return shape

    def clear(self) -> None:
        """Forget all images."""
        self._buffer[:] = 0

    def close(self) -> None:
        """Free the memory."""
        os.close(self.fd)


@dataclass(frozen=True)
class SharedParts:
    """Parts of datasets for a child: their descriptions, open files to pass on, and files to mount read-only."""

    described: list[dict[str, Any]]
    fds: tuple[int, ...]
    mounted: tuple[Path, ...]


@contextmanager
def shared_parts(parts: tuple[Part, ...], prepared: Prepared, plan: LaunchPlan) -> Iterator[SharedParts]:
    """The images of these parts and nothing else, as long as the context is open."""
    with ExitStack() as files:
        described: list[dict[str, Any]] = []
        fds, mounted = [], []
        for part in parts:
            decoded = prepared.images[part.name]
            images = decoded.images
            row: dict[str, Any] = {"name": part.name, "labels": part.labels.tolist(), "offset": 0}
            row["shape"] = (len(part.rows), *images.shape[1:])
            if len(part.rows) == len(images) and may_share_files(plan.sandbox):
                row["offset"] = decoded.offset
                if plan.sandbox == "bubblewrap":
                    mounted.append(decoded.file)
                    row["path"] = str(mount_point(decoded.file))
                else:
                    row["fd"] = os.open(decoded.file, os.O_RDONLY)
            else:
                row["fd"] = _copied(images, part.rows, plan.access.scratch.parent)
            if "fd" in row:
                files.callback(os.close, row["fd"])
                fds.append(row["fd"])
            described.append(row)
        yield SharedParts(described, tuple(fds), tuple(mounted))


def _copied(images: NDArray[np.uint8], rows: NDArray[np.int64], folder: Path) -> int:
    """Descriptor, for reading only, of a file without a name that holds these rows: images of meta-test classes
    cannot be reached through it."""
    with tempfile.NamedTemporaryFile(dir=folder) as copy:
        for start in range(0, len(rows), COPY_ROWS):
            copy.write(images[rows[start : start + COPY_ROWS]].tobytes())
        copy.flush()
        return os.open(copy.name, os.O_RDONLY)


def _memory() -> tuple[int, int]:
    """Descriptors of anonymous memory, for writing and for reading only."""
    writable = os.memfd_create("images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return writable, os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)


def _temporary_file() -> tuple[int, int]:
    """The same, of a file without a name, where there is no anonymous memory."""
    with tempfile.NamedTemporaryFile() as file:
        return os.dup(file.fileno()), os.open(file.name, os.O_RDONLY)


def _seal(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux before 5.1: a submission can spoil the images of its own task
            raise
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
