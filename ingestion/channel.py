"""Messages between ingestion and the submission's process: framed JSON with raw bytes, never pickle."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.errors import SubmissionError

MAX_MESSAGE_BYTES = 256 * 2**20
_SAFE_KINDS = "iufb"


@dataclass(frozen=True)
class Message:
    """`kind` says what it is, `fields` are JSON values, `array` is numeric data that came along."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    array: NDArray[Any] | None = None


class Channel:
    """One end of a two-way pipe, given by its file descriptor."""

    def __init__(self, fd: int) -> None:
        self._connection = Connection(fd)

    def send(self, kind: str, array: NDArray[Any] | None = None, **fields: Any) -> None:
        """Send one message. OSError: the other end is gone. TypeError: the array does not hold numbers."""
        header: dict[str, Any] = {"kind": kind, "fields": fields}
        payload = b""
        if array is not None:
            array = np.ascontiguousarray(array)
            if array.dtype.kind not in _SAFE_KINDS:
                raise TypeError(f"an array of numbers is needed, not one of type {array.dtype}")
            header |= {"dtype": array.dtype.str, "shape": array.shape}
            payload = array.tobytes()
        self._connection.send_bytes(json.dumps(header).encode() + b"\n" + payload)

    def receive(self) -> Message:
        """Wait for the next message. EOFError: the other end is gone. SubmissionError: not a message."""
        try:
            raw = self._connection.recv_bytes(MAX_MESSAGE_BYTES)
        except EOFError:
            raise
        except OSError as error:
            raise EOFError(str(error)) from error
        try:
            return _parse(raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SubmissionError(f"its process broke the protocol ({error})", fatal=True) from error

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


def _parse(raw: bytes) -> Message:
    head, _, payload = raw.partition(b"\n")
    header = json.loads(head)
    fields = dict(header["fields"])
    if "dtype" not in header:
        return Message(str(header["kind"]), fields)
    dtype = np.dtype(str(header["dtype"]))
    if dtype.kind not in _SAFE_KINDS:
        raise ValueError(f"array of type {dtype}")
    shape = tuple(int(n) for n in header["shape"])
    return Message(str(header["kind"]), fields, np.frombuffer(payload, dtype).reshape(shape))


def anonymous_file(n_bytes: int) -> int:
    """File descriptor of a nameless memory-backed file of `n_bytes`: it has no path and ends with its
    holders. (On systems without memfd it is an unlinked temporary file.)"""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("images")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, n_bytes)
    return fd


def map_array(
    fd: int, shape: tuple[int, ...], *, offset: int = 0, writable: bool = False
) -> NDArray[np.uint8]:
    """uint8 array of `shape` over the bytes of an open file, shared with whoever else maps it."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    count = int(np.prod(shape))
    view = mmap.mmap(fd, offset + count, access=access)
    return np.frombuffer(view, np.uint8, count, offset).reshape(shape)
