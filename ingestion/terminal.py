"""Preparing a program that runs submissions for signals and odd terminals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def prepare_process() -> None:
    """Make SIGTERM end a run as Ctrl-C does, so that finished tasks are kept and scored, and escape text of a
    submission that the terminal cannot show."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # TextIO hides the method


class Interrupt:
    """Whether somebody has asked for a phase of a run to end."""

    asked = False

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal: the first is noted, the next one is a KeyboardInterrupt."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def first_interrupt() -> Iterator[Interrupt]:
    """Note the first signal that would raise KeyboardInterrupt in this block, instead of raising it. Signals that are
    ignored or handled otherwise, and threads, which get none, are left alone."""
    interrupt, before = Interrupt(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: old for number, old in before.items() if old is signal.default_int_handler}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield interrupt
    finally:
        for number, old in before.items():
            signal.signal(number, old)
