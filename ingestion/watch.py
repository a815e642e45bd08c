"""The hard limits: a thread that ends the submission's processes when time or memory is used up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable

import psutil

WALL_TO_PROCESSOR = 1.5
"""Seconds that pass for each second of processor time while a program starts."""
TICK_S = 0.05
MEMORY_EVERY_TICKS = 4
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Watchdog:
    """Watches one child and all processes that it starts; `verdict` says why they were ended, or is empty. The
    memory of the processes `beside` counts too."""

    def __init__(self, pid: int, memory_bytes: int | None, beside: tuple[int, ...] = ()) -> None:
        self.verdict = ""
        self.peak_bytes = 0
        self._pid = pid
        self._roots = (pid, *beside)
        self._memory_bytes = memory_bytes
        self._deadline: float | None = None
        self._what = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def allow_until(self, deadline: float | None, what: str) -> None:
        """From now on the child must finish `what` by `deadline` (monotonic seconds, None: never)."""
        self._what, self._deadline = what, deadline

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        ticks = 0
        while not self._over.wait(TICK_S):
            ticks += 1
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._end(f"ran out of time: {self._what}")
                return
            with contextlib.suppress(psutil.Error):  # the process ended in the meantime
                if ticks % MEMORY_EVERY_TICKS == 0 and self._too_much_memory():
                    return

    def _too_much_memory(self) -> bool:
        used = sum(_private_bytes(p) for root in self._roots for p in process_tree(root))
        self.peak_bytes = max(self.peak_bytes, used)
        if self._memory_bytes is None or used <= self._memory_bytes:
            return False
        self._end(f"used {used / 1e9:.2f} GB of memory, the budget is {self._memory_bytes / 1e9:.2f} GB")
        return True

    def _end(self, verdict: str) -> None:
        self.verdict = verdict
        kill_processes(process_tree(self._pid))


def process_tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants; empty if it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_processes(processes: Iterable[psutil.Process]) -> None:
    """Kill the processes; those that have ended are ignored."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()


def descendants() -> set[int]:
    """Process ids of all processes that this process has started or adopted."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def end_strays(is_stray: Callable[[psutil.Process], bool]) -> None:
    """Kill those descendants of this process that are strays, and wait until they have ended."""
    strays = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if is_stray(process):
                strays.append(process)
    kill_processes(strays)
    psutil.wait_procs(strays, timeout=0.5)


def _private_bytes(process: psutil.Process) -> int:
    """Resident memory of the process without mapped files and shared pages."""
    try:
        info = process.memory_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(info.rss - getattr(info, "shared", 0))


def adopt_orphans() -> None:
    """Make this process adopt processes that its children leave running, so that it can end them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def _age_s() -> float:
    """Age of this program. The start time of the process is too early if a shell replaced itself by this program, as
    `sh -c "install && run"` does. Then the process has waited for children before, and the processor time tells the
    age."""
    age_s = max(time.time() - psutil.Process().create_time(), 0.0)
    if resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt:
        age_s = min(age_s, WALL_TO_PROCESSOR * time.process_time())
    return age_s


_BEGAN = time.monotonic() - _age_s()  # on import, before this program starts child processes


def seconds_since_start() -> float:
    """Age of this program, imports included: the time budget of a run starts with it."""
    return time.monotonic() - _BEGAN
