"""How long this program has run already: the time budget of a run begins with the program."""

from __future__ import annotations

import resource
import time

from ingestion.watch import began_at

WALL_TO_PROCESSOR = 1.5
"""Seconds that pass for each second of processor time while a program starts."""


def _age_s() -> float:
    """Age of this program. The start time of the process is too early if a shell replaced itself by this program, as
    `sh -c "install && run"` does. Then the process has waited for children before, and the processor time tells the
    age. So it does where there is no table of processes."""
    began = began_at()
    elapsed_s = max(time.time() - (began or 0.0), 0.0)
    if began is None or resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt:
        return min(elapsed_s, WALL_TO_PROCESSOR * time.process_time())
    return elapsed_s


_BEGAN = time.monotonic() - _age_s()  # on import, before this program starts child processes


def seconds_since_start() -> float:
    """Age of this program, imports included: the time budget of a run starts with it."""
    return time.monotonic() - _BEGAN
