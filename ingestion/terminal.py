"""Preparing a program that runs submissions for signals and odd terminals."""

from __future__ import annotations

import signal
import sys


def prepare_process() -> None:
    """Make SIGTERM end a run as Ctrl-C does, so that finished tasks are kept and scored, and escape text of a
    submission that the terminal cannot show."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # TextIO hides the method
