"""Processes that try to outlive the one that ingestion watches. All end by themselves after a while."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIFE_S = 120
BEAT = """
import pathlib, sys, time
held = bytearray(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
held[::4096] = bytes(len(held[::4096]))
for number in range(20 * 120):
    pathlib.Path(sys.argv[1]).write_text(str(number))
    time.sleep(0.05)
"""


def detach(work: Callable[[], None]) -> None:
    """Do the work in a process that has left the family, the session and the group."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                work()
            finally:
                os._exit(0)
        os._exit(0)
    os.wait()


def beat_without_environment(file: Path, *held_bytes: int) -> None:
    """Become another program that has nothing by which it could be recognised, and write to the file."""
    os.execve(sys.executable, [sys.executable, "-S", "-c", BEAT, str(file), *map(str, held_bytes)], {})


def ignore_signals() -> None:
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue
    time.sleep(LIFE_S)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(LIFE_S)


def run_ahead(file: Path) -> None:
    """A chain: each process starts the next one and ends at once, so that its number is always a new one."""
    until = time.monotonic() + LIFE_S
    generation = 0
    while time.monotonic() < until:
        generation += 1
        file.write_text(str(generation))
        if os.fork():
            os._exit(0)


def bomb() -> None:
    """A bomb of forks that is bounded, to spare the machine: 128 processes."""
    for _ in range(7):
        os.fork()
    time.sleep(LIFE_S)


def await_files(*files: Path) -> None:
    """Wait until the strays have written; AssertionError after a while, since nothing would be tried."""
    until = time.monotonic() + LIFE_S / 2
    while not all(file.exists() for file in files):
        assert time.monotonic() < until, "a stray did not start"
        time.sleep(0.05)


def beats(file: Path) -> str:
    """ "beats" where the file is written to."""
    before = file.read_text()
    time.sleep(0.5)
    return "beats" if file.read_text() != before else ""
