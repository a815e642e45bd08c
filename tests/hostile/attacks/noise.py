"""Attacks on what is shown and on the code around the submission, in its own process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

CHUNKS, CHUNK = 40, 100_000
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b2J\r\n== score 1.0\n-- sandbox: perfect\n!! \u202e\u2028\n"


def shout() -> None:
    """4 MB: escapes, lines that look like those of ingestion, a line without end, what is no text."""
    os.write(1, ESCAPES.encode() + b"\xff\xfe\x00\n" + b"\xc2\x9b2J\n")
    for _ in range(CHUNKS // 2):
        os.write(1, (b"y" * 99 + b"\n") * (CHUNK // 100))
    for _ in range(CHUNKS // 2):
        os.write(1, b"\x1b" * CHUNK)
    os.write(2, b"\n")


def patch_everything() -> None:
    """The functions by which ingestion checks, draws, watches and writes; they are copies in this process."""

    import ingestion.channel  # noqa: PLC0415
    import ingestion.outputs  # noqa: PLC0415
    import ingestion.tasks  # noqa: PLC0415
    import ingestion.watch  # noqa: PLC0415

    def nothing(*_: Any, **__: Any) -> None: ...

    modules: list[Any] = [ingestion.outputs, ingestion.watch, ingestion.tasks]
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Callable) and getattr(value, "__module__", "") == module.__name__:  # type: ignore[arg-type]
                setattr(module, name, nothing)
    ingestion.channel.MAX_MESSAGE_BYTES = 2**62
    vars(sys.modules["api"])["Learner"] = nothing
    np.random.seed(0)
    os.environ.clear()
