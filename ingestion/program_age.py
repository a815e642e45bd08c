"""How long this program has run already: the time budget of a run begins with the program."""

from __future__ import annotations

import resource
import time

import psutil

WALL_TO_PROCESSOR = 1.5
"""Seconds that pass for each second of processor time while a program starts."""


def _age_s() -> float:
    """Age of this program. The start time of the process is too early if a shell replaced itself by this program, as
    `sh -c "install && run"` does. Then the process has waited for children before, and the processor time tells the
    age. So it does where there is no table of processes."""
    by_processor_s = WALL_TO_PROCESSOR * time.process_time()
    try:
        age_s = max(time.time() - psutil.Process().create_time(), 0.0)
    except psutil.NoSuchProcess:  # `require_process_table` refuses it
        return by_processor_s
    return min(age_s, by_processor_s) if resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt else age_s


_BEGAN = time.monotonic() - _age_s()  # on import, before this program starts child processes


def seconds_since_start() -> float:
    """Age of this program, imports included: the time budget of a run starts with it."""
    return time.monotonic() - _BEGAN
