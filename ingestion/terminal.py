"""How a program that runs submissions meets its terminal and its end."""

from __future__ import annotations

import signal
import sys


def prepare_process() -> None:
    """SIGTERM ends a run as Ctrl-C does, so that what is done is kept and scored; text of a submission that
    the terminal can not show is escaped instead of ending the run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # TextIO hides the method
