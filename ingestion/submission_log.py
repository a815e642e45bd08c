"""The output of the submission: written to a file up to a maximum size, and shown at a limited rate."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ingestion.shown import plain

MAX_LOG_BYTES = 16 * 2**20
MAX_LINES_PER_S = 100


class SubmissionLog:
    """The log of a run, as text that is safe to show. `file` must not exist; it is opened once, so that nobody can
    replace it by a link."""

    def __init__(self, file: Path, on_line: Callable[[str], None]) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        self._on_line = on_line
        self._room = MAX_LOG_BYTES
        self._lock = threading.Lock()
        self._second = 0
        self._shown = 0
        self._hidden = 0

    def follow(self, stream: IO[bytes]) -> None:
        """Read `stream` until it ends. Reading never stops, even if the log or the display fails, since a full pipe
        would stop the submission."""
        with stream:
            while line := stream.readline(8192):
                if self._room > 0:
                    self._keep(line)
                self._show(line)

    def _keep(self, line: bytes) -> None:
        text = plain(line.decode("utf-8", "replace").replace("\r", "\n")).encode()
        with self._lock, contextlib.suppress(OSError):
            if self._room > 0:
                os.write(self._file, text[: self._room])
                self._room -= len(text)

    def _show(self, line: bytes) -> None:
        now = int(time.monotonic())
        if now != self._second:
            hidden, self._second, self._shown, self._hidden = self._hidden, now, 0, 0
            if hidden:
                self._tell(f"… {hidden} more lines, see the log")
        self._shown += 1
        if self._shown > MAX_LINES_PER_S:
            self._hidden += 1
            return
        self._tell(plain(line.decode("utf-8", "replace").rstrip("\n")))

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed or narrow terminal must not end a run
            self._on_line(text)

    def close(self) -> None:
        """Close the file. A process that still prints, whose number it may get, writes nothing more."""
        with self._lock:
            self._room = 0
            os.close(self._file)
