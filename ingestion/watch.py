"""The hard limits: a thread that ends the submission's processes when time or memory is used up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ingestion.disk import DiskMeter
from ingestion.errors import MOUNT, InputError
from ingestion.gpu_memory import GpuMeter
from ingestion.memory import MemoryMeter

TICK_S = 0.05
RESOURCES_EVERY_TICKS = 4
DISK_EVERY_S = 0.5
MAX_PROCESSES = 1000
"""More at a time than any program for two phases of learning needs; a bomb of forks soon has them."""
END_S = 5.0
"""How long processes that start others faster than they end are hunted."""
REST_S = 0.005
DISK_REST = 10
"""Looking at the folders takes at most one part in so many of the time."""
_watched: set[int] = set()
"""The children that have a watchdog."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Watched:
    """What a watchdog looks after. `pid`: the child, which it ends; the memory of the processes `beside` counts too,
    and so do strays, processes that this one has adopted and for which `is_stray` holds, and those that hide whose
    they are (`is_orphan`)."""

    pid: int
    memory_bytes: int | None
    memory: MemoryMeter | None
    disk: DiskMeter
    is_stray: Callable[[psutil.Process], bool]
    beside: tuple[int, ...] = ()
    gpu: GpuMeter | None = None

    def processes(self) -> list[psutil.Process]:
        """All processes of the submission, by one look at the table of processes. Of strays that have ended, nothing
        is left in that table afterwards."""
        family = {process.pid: process for process in psutil.Process().children(recursive=True)}
        parents: dict[int, int] = {}
        tops, strays = {self.pid, *self.beside}, set()
        for pid, process in family.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                parents[pid] = process.ppid()
                if parents[pid] == os.getpid() and pid not in tops and _holds(self.is_stray, process):
                    strays.add(pid)
        found = [
            process
            for pid, process in family.items()
            if not (tops | strays).isdisjoint(_upwards(pid, parents))
        ]
        for pid in strays:
            _reap(pid)
        return found


def _upwards(pid: int, parents: dict[int, int]) -> Iterator[int]:
    """The process and those above it."""
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        yield pid
        pid = parents[pid]


class Watchdog:
    """Watches one child and all processes that it starts; `verdict` says why they were ended, or is empty.
    `peak_bytes`: the most memory that was seen, 0 where there is no limit."""

    def __init__(self, watched: Watched) -> None:
        self.verdict = ""
        self.disk_is_full = False
        self.peak_bytes = 0
        self._watched = watched
        self._deadline: float | None = None
        self._what = ""
        self._look_at_disk = 0.0
        self._over = threading.Event()
        _watched.add(watched.pid)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def allow_until(self, deadline: float | None, what: str) -> None:
        """From now on the child must finish `what` by `deadline` (monotonic seconds, None: never)."""
        self._what, self._deadline = what, deadline

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()
        _watched.discard(self._watched.pid)

    def _watch(self) -> None:
        ticks = 0
        while not self._over.wait(TICK_S):
            ticks += 1
            try:
                if self._is_late() or (ticks % RESOURCES_EVERY_TICKS == 0 and self._has_too_much()):
                    return
            except psutil.Error:  # the process ended in the meantime
                continue
            except Exception as error:  # noqa: BLE001 - without a watchdog, a submission would have no limits at all
                self._end(f"could not be watched ({type(error).__name__}: {error})")
                return

    def _is_late(self) -> bool:
        deadline = self._deadline
        if deadline is None or time.monotonic() <= deadline:
            return False
        self._end(f"ran out of time: {self._what}")
        return True

    def _has_too_much(self) -> bool:
        return self._too_much_memory() or self._too_much_on_gpu() or self._too_much_on_disk()

    def _processes(self) -> list[psutil.Process]:
        """The processes of the submission. Where there are too many, it is ended first."""
        found = self._watched.processes()
        if len(found) > MAX_PROCESSES:
            self._end(f"had {len(found)} processes at a time, at most {MAX_PROCESSES} are allowed")
        return found

    def _too_much_memory(self) -> bool:
        watched, limit = self._watched, self._watched.memory_bytes
        if limit is None:
            return False
        processes = self._processes()
        if self.verdict:
            return True
        used = used_bytes(watched.memory, processes, limit)
        self.peak_bytes = max(self.peak_bytes, used)
        if used <= limit:
            return False
        self._end(f"used {used / 1e9:.2f} GB of memory, the budget is {limit / 1e9:.2f} GB")
        return True

    def _too_much_on_gpu(self) -> bool:
        """A child that stands by is not asked: the card is looked at as a whole."""
        excess = self._watched.gpu.excess() if self._watched.gpu and self._what else ""
        if excess:
            self._end(excess)
        return bool(excess)

    def _too_much_on_disk(self) -> bool:
        """A child that stands by is not asked: the one that works may be the cause."""
        began = time.monotonic()
        if not self._what or began < self._look_at_disk:
            return False
        processes = self._processes()
        if self.verdict:
            return True
        excess = self._watched.disk.excess(process.pid for process in processes)
        took_s = time.monotonic() - began
        self._look_at_disk = began + took_s + max(DISK_EVERY_S, DISK_REST * took_s)
        if excess:
            self.disk_is_full = True
            self._end(excess)
        return bool(excess)

    def _end(self, verdict: str) -> None:
        self.verdict = verdict
        kill_processes(process_tree(self._watched.pid))


def began_at() -> float | None:
    """When this process began, in seconds since 1970; None where the system does not show its processes."""
    try:
        return psutil.Process().create_time()
    except psutil.NoSuchProcess:
        return None


def require_process_table() -> None:
    """InputError where the system does not show its processes, by which submissions are watched and ended."""
    if began_at() is None:
        raise InputError(f"/proc shows no processes; {MOUNT}")


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
    """Kill those descendants of this process that are strays, and orphans, until none is left: some start others
    before they end."""
    until = time.monotonic() + END_S
    while strays := [p for p in psutil.Process().children(recursive=True) if _holds(is_stray, p)]:
        kill_processes(strays)
        psutil.wait_procs(strays, timeout=REST_S)
        if time.monotonic() > until:
            break
    reap_adopted()


def _holds(is_stray: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return is_orphan(process) or is_stray(process)
    except psutil.Error:  # it has ended, or does not let others look
        return False


def is_orphan(process: psutil.Process) -> bool:
    """Whether a process was left to this one by a sandbox, and is no child that has a watchdog. It cannot hide that,
    as it can its environment: no process gets rid of `NoNewPrivs`. False where this process has it too."""
    if process.ppid() != os.getpid() or process.pid in _watched:
        return False
    return _is_confined(process.pid) and not _is_confined(os.getpid())


def _is_confined(pid: int) -> bool:
    try:
        return b"\nNoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return False


def _reap(pid: int) -> None:
    """Take a process that has ended out of the table of processes, where it would keep its number."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def reap_adopted() -> None:
    """Reap processes that this one has adopted and that have ended, such as what is left of a sandbox: until then
    they keep their process ids, of which a container has few. What this program has started itself leads a session
    or is in that of this process, and is left to those who wait for it."""
    own = os.getsid(0)
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ProcessLookupError, ChildProcessError):
            over = process.status() == psutil.STATUS_ZOMBIE
            if over and os.getsid(process.pid) not in (own, process.pid):
                os.waitpid(process.pid, os.WNOHANG)


def used_bytes(meter: MemoryMeter | None, processes: list[psutil.Process], limit_bytes: int) -> int:
    """Memory of the processes together; where there is no meter, their resident memory without shared pages."""
    if meter is not None:
        return meter.used_bytes([process.pid for process in processes], limit_bytes)
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = process.memory_info()
            total += info.rss - getattr(info, "shared", 0)
    return total


def adopt_orphans() -> None:
    """Make this process adopt processes that its children leave running, so that it can end them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends (Linux). Callers then check that it has not ended before,
    of which the kernel says nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
