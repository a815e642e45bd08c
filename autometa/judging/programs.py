"""Programs that are watched from outside: started in sessions of their own, timed, and ended when they are late."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

POLL_S = 0.5
"""Seconds between two checks whether programs were stopped."""
END_S = 60.0
"""Seconds that a program which is late has to end after a signal: what it has done may be of use."""
STOP_S = 5.0
"""The same of one that somebody stopped: what it has done is not used."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: `exit_status`, negative for the signal that killed it; `wall_s` from its start to its end;
    `late`: it had to be ended from outside."""

    exit_status: int
    wall_s: float
    late: bool


@dataclass
class Programs:
    """Starts programs, from any thread; `stop` ends those that run, and no others start."""

    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self,
        command: Sequence[str],
        printed: Path,
        limit_s: float,
        variables: Mapping[str, str] | None = None,
    ) -> Ended | None:
        """Run a program that prints to a file, with these `variables` in addition; None if it was stopped. OSError
        where it cannot be started."""
        began = time.monotonic()  # before the start, which a short program may outrun
        process = self._start(command, printed, variables or {})
        if process is None:
            return None
        try:
            late = not self._wait(process, limit_s)
        except BaseException:  # Ctrl-C does not reach its session
            _end(process, STOP_S)
            raise
        if self.stopped:
            return None
        return Ended(process.returncode, time.monotonic() - began, late)

    def stop(self) -> None:
        """Ask the programs that run to end, and start no others."""
        with self._lock:
            self.stopped = True

    def _start(
        self, command: Sequence[str], printed: Path, variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | None:
        """In a session of its own, so that Ctrl-C only reaches it through `stop`."""
        environment = {**os.environ, "COLUMNS": "200", **variables}
        with self._lock, printed.open("wb") as out:
            if self.stopped:
                return None
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes], limit_s: float) -> bool:
        """Wait until the program has ended; whether it did so in time. If it is late, or all should stop, it is
        ended."""
        deadline = time.monotonic() + limit_s
        while not self.stopped and (left_s := deadline - time.monotonic()) > 0:
            if _has_ended(process, min(POLL_S, left_s)):
                return True
        _end(process, STOP_S if self.stopped else END_S)
        return False


def _end(process: subprocess.Popen[bytes], each_s: float) -> None:
    """End a program by signals; it is killed at last, since a signal can be lost while Python starts."""
    for told in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(told)
        if _has_ended(process, each_s):
            return


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ends within this many seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
