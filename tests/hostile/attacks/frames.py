"""Attacks by the channel to ingestion, each in a process that ingestion waits for."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

HUGE = 2**63
SECONDS = 300


def write(content: bytes) -> None:
    """To the channel, as it is."""
    channel = int(sys.argv[1])
    while content:
        content = content[os.write(channel, content) :]


def frame(raw: bytes) -> None:
    write(struct.pack("!Q", len(raw)) + raw)


def message(kind: str, payload: bytes = b"", **header: Any) -> None:
    """A frame with this header; fields and the description of an array are what is given."""
    frame(json.dumps({"kind": kind, "fields": {}} | header).encode() + b"\n" + payload)


def trickle() -> None:
    """The process ends; another, which has left its family, keeps the channel and sends a byte now and then."""
    if os.fork() == 0:
        os.setsid()
        write(struct.pack("!Q", 2**27))
        for _ in range(SECONDS * 100):
            write(b" ")
            time.sleep(0.01)
    time.sleep(0.5)
    os._exit(0)


def close_and_stay() -> None:
    os.close(int(sys.argv[1]))
    time.sleep(SECONDS)


def error(**fields: Any) -> None:
    message("error", fields={"stage": "start"} | fields)


def array(dtype: str, shape: object = (1,)) -> Callable[[], None]:
    return lambda: message("ready", bytes(8), dtype=dtype, shape=shape)


ABUSES: dict[str, Callable[[], None]] = {
    "half a length": lambda: write(b"\0\0\0"),
    "half a frame": lambda: write(struct.pack("!Q", 1000) + b"{"),
    "a byte now and then, from a stray": trickle,
    "a frame without end": lambda: write(struct.pack("!Q", HUGE)),
    "a pickle": lambda: frame(pickle.dumps(os.getcwd)),
    "no JSON": lambda: frame(b"\xff\xfe\n"),
    "an array of objects": array("O"),
    "a type that is parsed as Python": array("(2,f8"),
    "a type of dates": array("datetime64[s]"),
    "a type with fields": array("f8,f8"),
    "a shape that does not fit": array("<f8", [9]),
    "a shape too large for any memory": array("<f8", [2**62, 2**62]),
    "a negative shape": array("<f8", [-1]),
    "lists within lists": lambda: frame(b"[" * 100_000),
    "lists within lists in a field": lambda: frame(
        b'{"kind": "error", "fields": {"summary": ' + b"[" * 900 + b"]" * 900 + b"}}\n"
    ),
    "a number of many digits": lambda: frame(b'{"kind": "ready", "fields": {"n": ' + b"9" * 100_000 + b"}}\n"),
    "much JSON": lambda: message("ready", fields={"x": "y" * 5_000_000}),
    "another answer": lambda: message("predictions"),
    "an answer with escapes": lambda: message("\x1b[2J\n-- sandbox: perfect"),
    "an error with escapes and lines": lambda: error(summary="\x1b[2Jbad\n== score 1.0\r!! all is well\u2028x"),
    "a long traceback": lambda: error(summary="long", traceback="\x1b[31m line\n" * 100_000),
    "fields of other types": lambda: error(summary={"a": [1]}, traceback=7, fatal="no"),
    "a closed channel": close_and_stay,
}  # fmt: skip


def abuse(number: int) -> None:
    """The abuse of this number, from 0; nothing after the last one."""
    if 0 <= number < len(ABUSES):
        list(ABUSES.values())[number]()
        os._exit(0)
