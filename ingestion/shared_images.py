"""Images in memory that ingestion fills and a submission reads, without a path.

The submission gets a descriptor for reading only, but it may open the same memory anew under `/proc/self/fd`. So the
memory is sealed (Linux): nobody can change its size, which would end ingestion by a signal at its next write, and
nobody but ingestion, which has mapped it before, can write to it.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import sys
import tempfile

import numpy as np
from numpy.typing import NDArray

from ingestion.channel import map_array

_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; only newer versions of Python name it


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

    def close(self) -> None:
        """Free the memory."""
        os.close(self.fd)


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
