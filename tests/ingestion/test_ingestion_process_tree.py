"""The table of processes: who descends from whom, and who may be killed or reaped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from ingestion import process_tree
from ingestion.memory import MemoryMeter
from ingestion.process_tree import Entry, Most, adopt_orphans, below, family, kill_group, read_entry, shown_as
from ingestion.watch import kill_processes, used_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of Linux")
FAMILY = """
import os, time
if os.fork() == 0:
    time.sleep(600)
os.write(1, b"!")
time.sleep(600)
"""


@contextmanager
def started(*, leads: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A child that has one child, and leads a group or does not."""
    command = [sys.executable, "-S", "-c", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=leads) as child:
        assert child.stdout is not None and child.stdout.read(1) == b"!"
        both = psutil.Process(child.pid), *psutil.Process(child.pid).children()
        try:
            yield child
        finally:
            for each in both:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def test_descendants_are_found_by_their_parents_and_children_come_first() -> None:
    entries = [Entry(pid, parent, 0) for pid, parent in ((9, 8), (8, 3), (7, 1), (4, 2), (3, 2), (2, 1))]
    table = {entry.pid: entry for entry in entries}
    assert {entry.pid for entry in below([3, 7, 99], table)} == {3, 8, 9, 7}
    order = [entry.pid for entry in family(2, entries)]
    assert order[:2] == [4, 3] and set(order[2:]) == {8, 9}


def test_a_circle_of_parents_ends() -> None:
    table = {1: Entry(1, 2, 0), 2: Entry(2, 1, 0)}
    assert len(below([1], table)) == 2


def test_the_entry_of_a_process_tells_of_its_threads_and_its_end() -> None:
    go_on = threading.Event()
    threads = [threading.Thread(target=go_on.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    own = read_entry(os.getpid())
    go_on.set()
    for thread in threads:
        thread.join()
    assert own and own.parent == os.getppid() and own.session == os.getsid(0)
    assert own.threads >= 4 and not own.is_over
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    over = read_entry(child.pid)
    assert over and over.is_over and over.began >= own.began
    child.wait()
    assert read_entry(child.pid) is None


FIRST_THREAD_ENDS = """
import ctypes, os, threading, time
def go_on():
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    os.write(1, b"!")
    time.sleep(600)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_hides_nothing() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.read(1) == b"!"
        entry = read_entry(child.pid)
        assert entry and entry.is_over and entry.threads == 2
        meter = MemoryMeter({}, private=False)
        bare, used = meter.used_bytes([child.pid], None), used_bytes(meter, [entry], 2**40)
        kill_processes([entry])
    assert bare == 0 and used > 2**20
    assert shown_as(entry) == entry.pid  # it has ended


def test_a_group_is_killed_at_once() -> None:
    adopt_orphans()  # so that what is left of the grandchild is reaped here
    with started(leads=True) as child:
        (grandchild,) = psutil.Process(child.pid).children()
        kill_group(child.pid)
        assert child.wait() == -9
        assert psutil.wait_procs([grandchild], timeout=60)[0]


def test_no_group_is_killed_but_that_of_a_child_that_leads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = list[int]()
    monkeypatch.setattr(os, "killpg", lambda group, _: killed.append(group))
    with started(leads=False) as follower:
        kill_group(follower.pid)
        kill_group(psutil.Process(follower.pid).children()[0].pid)
    monkeypatch.setattr(os, "getpgid", lambda pid: pid)  # as if strangers with these numbers led groups
    kill_group(follower.pid)  # has been reaped
    kill_group(os.getppid())
    assert not killed


def test_a_process_that_has_the_number_of_another_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = list[int]()
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    entry = read_entry(os.getppid())
    assert entry
    kill_processes([entry._replace(began=entry.began - 1)])
    assert not killed
    kill_processes([entry])
    assert killed == [entry.pid]


@pytest.mark.parametrize(("cores", "processes"), [(1, 250), (4, 250), (8, 400), (64, 1000)])
def test_on_few_cores_fewer_processes_are_allowed(
    cores: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "count_cores", lambda: cores)
    assert Most.on_this_machine(1000).processes == processes


def test_threads_count_beside_processes() -> None:
    most = Most(processes=3, threads=10)
    assert most.excess([Entry(1, 0, 0, threads=8), Entry(2, 1, 0, threads=2)]) == ""
    assert "had 4 processes at a time" in most.excess([Entry(n, 0, 0) for n in range(4)])
    assert most.excess([Entry(1, 0, 0, threads=11)]) == "had 11 threads at a time, at most 10 are allowed"
