"""Preparing a program that runs submissions for signals and odd terminals."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from ingestion.watch import require_process_table

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)
HURRY = (signal.SIGTERM, signal.SIGXCPU)
"""Whoever sends these kills the program soon after, often in 30 s."""
HURRY_S = 15.0
"""Seconds for meta-test after one of them; then the results are written and scored."""


def prepare_process() -> None:
    """Make signals that end a program end a run as Ctrl-C does, so that finished tasks are kept and scored, and
    escape text of a submission that the terminal cannot show. With `nohup`, a closed terminal ends nothing.
    InputError where no run can be watched."""
    require_process_table()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt_program)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # TextIO hides the method


def interrupt_program(number: int, frame: object) -> None:
    """Handle a signal that ends a program: KeyboardInterrupt."""
    hush_processor_limit(number)
    raise KeyboardInterrupt


def hush_processor_limit(number: int) -> None:
    """The system repeats SIGXCPU every second: from now on, only the hard limit holds."""
    if number == signal.SIGXCPU:
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


def go_on_silently(stream: IO[str]) -> None:
    """Nobody reads `stream` any more, as behind `| head` or in a terminal that was closed: what is written to it goes
    nowhere from now on, and ends no run."""
    with contextlib.suppress(OSError, ValueError):  # it has no file of its own
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Interrupt:
    """Whether somebody has asked for a phase of a run to end, and whether the run has to end soon after."""

    asked = False
    hurries = False

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal: the first is noted, the next one is a KeyboardInterrupt."""
        hush_processor_limit(number)
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self.hurries = True, number in HURRY


ENDS = (signal.default_int_handler, interrupt_program)


@contextmanager
def first_interrupt() -> Iterator[Interrupt]:
    """Note the first signal that would raise KeyboardInterrupt in this block, instead of raising it. Signals that are
    ignored or handled otherwise, and threads, which get none, are left alone."""
    interrupt, before = Interrupt(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: old for number, old in before.items() if old in ENDS}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield interrupt
    finally:
        for number, old in before.items():
            signal.signal(number, old)
