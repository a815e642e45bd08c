"""The hard limits: threads that end the submission's processes when time or memory is used up."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psutil

from ingestion import process_tree as trees
from ingestion.disk import DiskMeter
from ingestion.errors import MOUNT, InputError
from ingestion.gpu_memory import GpuMeter
from ingestion.memory import Look, MemoryMeter, StoppedError, TooManyError
from ingestion.process_tree import Entry, is_orphan

TICK_S = 0.05
LOOK_S = 0.2
DISK_EVERY_S = 0.5
MAX_PROCESSES = 1000
"""More at a time than any program for two phases of learning needs; a bomb of forks soon has them."""
END_S = 5.0
"""How long processes that start others faster than they end are hunted."""
REST_S = 0.005
KILL_EVERY_S = 0.5
"""After a verdict: between two looks at all processes; those of the group are killed at each tick."""
JOIN_S = 1.0
"""How long the end of a look is waited for; it ends early, but for one long read in the kernel."""
DISK_REST = 10
"""Looking at the folders takes at most one part in so many of the time."""


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

    def processes(self, look: Look | None = None) -> list[Entry]:
        """All processes of the submission, by one look at the table of processes. Of strays that have ended, nothing
        is left in that table afterwards."""
        look, mine, tops = look or Look(), os.getpid(), {self.pid, *self.beside}
        table = {entry.pid: entry for entry in look.each(_entries())}
        strays = {
            entry.pid
            for entry in look.each(table.values())
            if entry.parent == mine and entry.pid not in tops and _is_left_behind(entry, self.is_stray)
        }
        found = trees.below(tops | strays, table)
        for pid in strays:
            if table[pid].is_over:
                trees.reap(pid)
        return found


class Watchdog:
    """Watches one child and all processes that it starts; `verdict` says why they were ended, or is empty.
    `peak_bytes`: the most memory that was seen, 0 where there is no limit. One thread keeps the time, and never waits
    for the other, which looks at what the processes hold: a submission can make that take long."""

    def __init__(self, watched: Watched) -> None:
        self.verdict = ""
        self.disk_is_full = False
        self.peak_bytes = 0
        self._watched = watched
        self._allowed: tuple[float | None, str] = (None, "")
        self._look_at_disk = self._kill_again = 0.0
        self._most = trees.Most.on_this_machine(MAX_PROCESSES)
        self._over, self._looks_are_over = threading.Event(), threading.Event()
        self._judging = threading.Lock()
        trees.watched.add(watched.pid)
        works = (self._keep_time, self._keep_looking)
        self._threads = [threading.Thread(target=work, name="watchdog", daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def allow_until(self, deadline: float | None, what: str) -> None:
        """From now on the child must finish `what` by `deadline` (monotonic seconds, None: never)."""
        self._allowed = deadline, what

    def stop(self) -> None:
        """Stop watching. No verdict comes any more, even where a look takes longer than this waits."""
        with self._judging:
            self._over.set()
            self._looks_are_over.set()
        for thread in self._threads:
            thread.join(JOIN_S)
        trees.watched.discard(self._watched.pid)

    def _keep_time(self) -> None:
        """After a verdict, what is left or comes anew is killed at each tick."""
        trees.come_first()
        while not self._over.wait(TICK_S):
            if not self.verdict:
                self._end_if_late()
            elif time.monotonic() >= self._kill_again:
                self._kill()
            else:
                trees.kill_group(self._watched.pid)

    def _end_if_late(self) -> None:
        deadline, what = self._allowed
        if deadline is not None and time.monotonic() > deadline:
            self._end(f"ran out of time: {what}")

    @property
    def _stands_by(self) -> bool:
        return not self._allowed[1]

    def _keep_looking(self) -> None:
        trees.come_first()  # while it has the lock of the interpreter, the other thread cannot work
        rest_s = LOOK_S
        while not self._looks_are_over.wait(rest_s):
            began = time.monotonic()
            try:
                self._end(self._excess(Look(self._looks_are_over.is_set)))
            except (StoppedError, psutil.Error):  # somebody has decided, or a process ended in the meantime
                continue
            except TooManyError as error:
                self._end(str(error))
            except Exception as error:  # noqa: BLE001 - without a watchdog, a submission would have no limits at all
                self._end(f"could not be watched ({type(error).__name__}: {error})")
            rest_s = max(LOOK_S, time.monotonic() - began)

    def _excess(self, look: Look) -> str:
        """Why the submission must end, or ""."""
        processes = self._watched.processes(look)
        return (
            self._most.excess(processes)
            or self._too_much_memory(processes, look)
            or self._too_much_on_gpu()
            or self._too_much_on_disk(processes, look)
        )

    def _too_much_memory(self, processes: list[Entry], look: Look) -> str:
        limit = self._watched.memory_bytes
        if limit is None:
            return ""
        used = used_bytes(self._watched.memory, processes, limit, look)
        self.peak_bytes = max(self.peak_bytes, used)
        if used <= limit:
            return ""
        return f"used {used / 1e9:.2f} GB of memory, the budget is {limit / 1e9:.2f} GB"

    def _too_much_on_gpu(self) -> str:
        """A child that stands by is not asked: the card is looked at as a whole."""
        return self._watched.gpu.excess() if self._watched.gpu and not self._stands_by else ""

    def _too_much_on_disk(self, processes: list[Entry], look: Look) -> str:
        """A child that stands by is not asked: the one that works may be the cause."""
        began = time.monotonic()
        if self._stands_by or began < self._look_at_disk:
            return ""
        excess = self._watched.disk.excess(map(trees.shown_as, processes), look)
        took_s = time.monotonic() - began
        self._look_at_disk = began + took_s + max(DISK_EVERY_S, DISK_REST * took_s)
        self.disk_is_full = bool(excess)
        return excess

    def _end(self, verdict: str) -> None:
        """Nothing happens without a verdict, after the first one, and after `stop`."""
        with self._judging:
            if not verdict or self.verdict or self._over.is_set():
                return
            self.verdict = verdict
            self._looks_are_over.set()
        self._kill()

    def _kill(self) -> None:
        self._kill_again = time.monotonic() + KILL_EVERY_S
        trees.kill_group(self._watched.pid)
        with contextlib.suppress(
            OSError
        ):  # no file can be opened to list processes: the next look tries again
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


def _entry(pid: int) -> Entry | None:
    """The entry of a process; None where there is none. Elsewhere than on Linux, nothing is adopted, and each process
    is taken for one thread and the first of its session."""
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            is_over = process.status() == psutil.STATUS_ZOMBIE
            return Entry(pid, process.ppid(), process.create_time(), is_over, session=pid)
        return None
    return trees.read_entry(pid)


def _entries() -> Iterator[Entry]:
    """All processes, those with the highest numbers first: mostly the latest. Elsewhere than on Linux, where an entry
    takes long and nothing is adopted, those that this process has started."""
    pids = psutil.pids()
    if sys.platform != "linux":
        pids = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
    return (entry for pid in sorted(pids, reverse=True) if (entry := _entry(pid)))


def process_tree(pid: int) -> list[Entry]:
    """The process and its descendants; empty if it has ended."""
    return trees.below([pid], {entry.pid: entry for entry in _entries()})


def kill_processes(processes: Iterable[Entry]) -> None:
    """Kill the processes; those that have ended are ignored, whoever has their numbers now."""
    for process in processes:
        now = _entry(process.pid)
        if now and now.began == process.began:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def descendants() -> set[int]:
    """Process ids of all processes that this process has started or adopted."""
    return {entry.pid for entry in process_tree(os.getpid())} - {os.getpid()}


def end_strays(is_stray: Callable[[psutil.Process], bool]) -> None:
    """Kill and reap those descendants of this process that are strays, and orphans, until none is left: some start
    others before they end. At most for END_S, however many there are."""
    until = time.monotonic() + END_S
    hunted: set[tuple[int, float]] = set()
    while time.monotonic() <= until:
        before = len(hunted)
        if not _hunt(is_stray, hunted, until):
            break
        if len(hunted) == before:  # all are on their way out
            time.sleep(REST_S)
    trees.reap_adopted(_entries())


def _hunt(is_stray: Callable[[psutil.Process], bool], hunted: set[tuple[int, float]], until: float) -> bool:
    """Go through the processes once, until a moment, and kill or reap strays; whether some were found: even if all
    have ended, the last may have started another one. What this process has adopted comes first, each as soon as it
    is seen: a chain of forks is gone a moment later."""
    found = False
    for entry in trees.family(os.getpid(), _entries()):
        if time.monotonic() > until:
            return True
        known = (entry.pid, entry.began)
        if known in hunted or _is_left_behind(entry, is_stray):
            hunted.add(known)
            kill_processes([entry])  # also where it is over: other threads may go on
            is_mine = entry.parent == os.getpid()
            if entry.is_over and is_mine:
                trees.reap(entry.pid)
            found = found or is_mine or not entry.is_over
    return found


def _is_left_behind(entry: Entry, is_stray: Callable[[psutil.Process], bool]) -> bool:
    try:
        return is_orphan(entry) or is_stray(psutil.Process(entry.pid))
    except psutil.Error:  # it has ended, or does not let others look
        return False


def used_bytes(
    meter: MemoryMeter | None, processes: list[Entry], limit_bytes: int, look: Look | None = None
) -> int:
    """Memory of the processes together; where there is no meter, their resident memory without shared pages."""
    if meter is not None:
        return meter.used_bytes(map(trees.shown_as, processes), limit_bytes, look)
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = psutil.Process(process.pid).memory_info()
            total += info.rss - getattr(info, "shared", 0)
    return total
