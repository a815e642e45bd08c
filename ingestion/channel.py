"""Messages between ingestion and the submission's process: framed JSON with raw bytes, never pickle."""

from __future__ import annotations

import json
import math
import mmap
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.errors import SubmissionError

MAX_MESSAGE_BYTES = 256 * 2**20
MOST_AXES = 32
POLL_S = 0.05
LAST_WORDS_S = 0.5
"""How long what a process has sent is still read when it is over: another one may hold its channel, and trickle."""
_LENGTH = struct.Struct("!Q")
_SAFE_KINDS = "iufb"
_DTYPE = re.compile(rf"[<>|=]?[{_SAFE_KINDS}]\d{{1,2}}", re.ASCII)
"""What numpy writes for arrays of numbers: it reads a lot more, such as types with several fields."""
MOST_SHOWN = 200
"""Characters of what is wrong with a message."""


@dataclass(frozen=True)
class Message:
    """`kind` is the type of the message, `fields` are JSON values, `array` is optional numeric data."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    array: NDArray[Any] | None = None


class ChannelClosed(EOFError):
    """Nothing more can come. Of its own, since a submission may raise EOFError."""


class Channel:
    """One end of a two-way stream socket, given by its file descriptor. `max_head_bytes`: the most JSON in a message
    that is read, since it takes many times its size in memory."""

    def __init__(self, fd: int, *, max_head_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._socket = socket.socket(fileno=fd)
        self._max_head_bytes = max_head_bytes

    def send(
        self, kind: str, array: NDArray[Any] | None = None, *, limit_s: float | None = None, **fields: Any
    ) -> None:
        """Send one message. TimeoutError: the other end did not read it within `limit_s`. OSError: it has closed.
        TypeError: the array does not hold numbers."""
        header: dict[str, Any] = {"kind": kind, "fields": fields}
        payload = b""
        if array is not None:
            array = np.ascontiguousarray(array)
            if array.dtype.kind not in _SAFE_KINDS:
                raise TypeError(f"an array of numbers is needed, not one of type {array.dtype}")
            header |= {"dtype": array.dtype.str, "shape": array.shape}
            payload = array.tobytes()
        raw = json.dumps(header).encode() + b"\n" + payload
        self._socket.settimeout(limit_s)
        self._socket.sendall(_LENGTH.pack(len(raw)) + raw)

    def is_closed(self) -> bool:
        """Whether the other end has closed, or its process has ended, even if messages are left to read."""
        poller = select.poll()
        poller.register(self._socket, 0)  # a hang-up is told, whatever is asked for
        return bool(poller.poll(0))

    def receive(self, over: Callable[[], bool] = lambda: False) -> Message:
        """Wait for the next message, or until `over()` is true, even if the other end is still open.

        ChannelClosed: the other end has closed, or `over()` is true. SubmissionError: the bytes received are no
        message.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, over))
        if length > MAX_MESSAGE_BYTES:
            raise SubmissionError(f"its process sent a message of {length} bytes", fatal=True)
        raw = self._read(length, over)
        try:
            return _parse(raw, self._max_head_bytes)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = " ".join(str(error).split())[:MOST_SHOWN]
            raise SubmissionError(f"its process broke the protocol ({reason})", fatal=True) from error

    def _read(self, n: int, over: Callable[[], bool]) -> bytearray:
        got = bytearray()
        last: float | None = None
        while len(got) < n:
            ready = select.select([self._socket], [], [], POLL_S)[0]
            if last is None and over():
                last = time.monotonic() + LAST_WORDS_S
            if last is not None and (not ready or time.monotonic() > last):
                raise ChannelClosed("the process is over")
            if not ready:
                continue
            try:
                part = self._socket.recv(min(n - len(got), 2**20))
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not part:
                raise ChannelClosed("the other end is gone")
            got += part
        return got

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _parse(raw: bytearray, max_head_bytes: int) -> Message:
    """The message in these bytes, whose array shares their memory."""
    end = raw.find(b"\n")
    size = len(raw) if end < 0 else end
    if size > max_head_bytes:
        raise ValueError(f"{size} bytes of JSON")
    header, payload = json.loads(raw[:size]), memoryview(raw)[size + 1 :]
    fields = dict(header["fields"])
    if "dtype" not in header:
        return Message(str(header["kind"]), fields)
    if not _DTYPE.fullmatch(str(header["dtype"])):
        raise ValueError(f"array of type {header['dtype']!r:.80}")
    dtype = np.dtype(str(header["dtype"]))
    shape = tuple(header["shape"])
    if len(shape) > MOST_AXES or not all(isinstance(n, int) and 0 <= n <= MAX_MESSAGE_BYTES for n in shape):
        raise ValueError("the shape of the array is none")
    if math.prod(shape) * dtype.itemsize != len(payload):
        raise ValueError("array and shape do not fit")
    return Message(str(header["kind"]), fields, np.frombuffer(payload, dtype).reshape(shape))


def map_array(
    fd: int, shape: tuple[int, ...], *, offset: int = 0, writable: bool = False
) -> NDArray[np.uint8]:
    """uint8 array of `shape` over the bytes of an open file, shared with all other processes that map it."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    count = math.prod(shape)
    view = mmap.mmap(fd, offset + count, access=access)
    return np.frombuffer(view, np.uint8, count, offset).reshape(shape)
