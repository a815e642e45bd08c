"""The table of processes, whose entries are one read of a file each (Linux), and what the kernel does with them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ingestion.cgroups import count_cores

FEW_PROCESSES, PROCESSES_PER_CORE = 250, 50
FEW_THREADS = 4000
watched: set[int] = set()
"""The children that have a watchdog."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_AFTER_NAME = {"state": 0, "parent": 1, "session": 3, "threads": 17, "began": 19}
"""Places of the fields in `/proc/PID/stat`, behind the name, which may hold anything."""


class Entry(NamedTuple):
    """A process. `began`: when, in a unit of the system; it tells a process from a later one with the same number.
    `is_over`: it has ended, and waits to be reaped."""

    pid: int
    parent: int
    began: float
    is_over: bool = False
    threads: int = 1
    session: int = 0


def read_entry(pid: int) -> Entry | None:
    """The entry of a process (Linux); None where there is none."""
    try:
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        state, parent, session, threads, began = (fields[place] for place in _AFTER_NAME.values())
    except (OSError, ValueError, IndexError):
        return None
    return Entry(pid, int(parent), int(began), state in b"ZX", int(threads), int(session))


def _read(pid: int, name: str) -> bytes:
    """A file in `/proc`, in half the time that `Path` takes: a bomb of forks makes many."""
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def shown_as(entry: Entry) -> int:
    """The number under which `/proc` shows what a process holds: where its first thread has ended, nothing is shown
    under that of the process, and everything under that of any other thread."""
    if entry.is_over and entry.threads > 1:
        with contextlib.suppress(OSError):
            for folder in Path(f"/proc/{entry.pid}/task").iterdir():
                thread = read_entry(int(folder.name))
                if thread and not thread.is_over:
                    return thread.pid
    return entry.pid


def below(tops: Iterable[int], table: dict[int, Entry]) -> list[Entry]:
    """The processes `tops`, as far as they are in the table, and all that descend from them."""
    children = defaultdict(list)
    for entry in table.values():
        children[entry.parent].append(entry.pid)
    left, seen = [pid for pid in tops if pid in table], dict[int, Entry]()
    while left:
        pid = left.pop()
        if pid not in seen:
            seen[pid] = table[pid]
            left += children[pid]
    return list(seen.values())


def family(top: int, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The descendants of a process: children as they come, the others at the end."""
    table: dict[int, Entry] = {}
    for entry in entries:
        table[entry.pid] = entry
        if entry.parent == top:
            yield entry
    yield from (entry for entry in below([top], table) if top not in (entry.pid, entry.parent))


@dataclass(frozen=True)
class Most:
    """So many processes, and so many threads of all processes together, are allowed at a time."""

    processes: int
    threads: int

    @classmethod
    def on_this_machine(cls, processes: int) -> Most:
        """By the number of cores, at most so many `processes`: on few cores, even some hundred that are busy would
        keep ingestion itself from working. Libraries start a thread for each core that they see, in each thread of
        a program that uses them."""
        cores = os.cpu_count() or 1
        return cls(
            min(processes, max(FEW_PROCESSES, PROCESSES_PER_CORE * count_cores())),
            max(FEW_THREADS, 2 * cores**2),
        )

    def excess(self, entries: Sequence[Entry]) -> str:
        """What is too much, or ""."""
        threads = sum(entry.threads for entry in entries)
        for what, count, most in (
            ("processes", len(entries), self.processes),
            ("threads", threads, self.threads),
        ):
            if count > most:
                return f"had {count} {what} at a time, at most {most} are allowed"
        return ""


def kill_group(leader: int) -> None:
    """Kill the group of processes that a child of this process leads, however many they are, in one call. Nothing is
    done where the child leads none, or was reaped: then its number may be that of a stranger."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        # this leaves its status to who waits for it, and fails where it is no child any more
        os.waitid(os.P_PID, leader, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if os.getpgid(leader) == leader:
            os.killpg(leader, signal.SIGKILL)


def reap(pid: int) -> None:
    """Take a process that has ended out of the table of processes, where it would keep its number."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def reap_adopted(entries: Iterable[Entry]) -> None:
    """Reap processes that this one has adopted and that have ended, such as what is left of a sandbox: until then
    they keep their process ids, of which a container has few. What this program has started itself leads a session
    or is in that of this process, and is left to those who wait for it."""
    own = os.getsid(0)
    for entry in entries:
        if entry.parent == os.getpid() and entry.is_over and entry.session not in (own, entry.pid):
            reap(entry.pid)


def is_orphan(process: Entry) -> bool:
    """Whether a process was left to this one by a sandbox, and is no child that has a watchdog. It cannot hide that,
    as it can its environment: no process gets rid of `NoNewPrivs`. False where this process has it too."""
    if process.parent != os.getpid() or process.pid in watched:
        return False
    return is_confined(process.pid) and not is_confined(os.getpid())


def is_confined(pid: int) -> bool:
    """Whether a process, which may have ended, got no new privileges (`NoNewPrivs`)."""
    try:
        return b"\nNoNewPrivs:\t1\n" in _read(pid, "status")
    except OSError:
        return False


def come_first() -> None:
    """Let the kernel prefer this thread to those of a submission, where this process may ask for that (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)


def adopt_orphans() -> None:
    """Make this process adopt processes that its children leave running, so that it can end them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends (Linux). Callers then check that it has not ended before,
    of which the kernel says nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
