"""The watchdog: it keeps the time whatever a submission does to those who look at its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingestion import process_tree, watch
from ingestion.disk import DiskMeter
from ingestion.memory import Look, StoppedError, TooManyError
from ingestion.process_tree import Entry, adopt_orphans
from ingestion.watch import Watchdog, Watched

PID = 999_999_999
"""That of no process."""
PATIENCE_S = 60
"""For what comes at once, on a machine that is busy."""


class Submission(Watched):
    """One whose processes are listed by a function."""

    def __init__(self, folder: Path, listed: Callable[[Look], list[Entry]]) -> None:
        super().__init__(PID, None, None, DiskMeter((folder,), {}), lambda _: False)
        object.__setattr__(self, "listed", listed)

    def processes(self, look: Look | None = None) -> list[Entry]:
        found: list[Entry] = self.__dict__["listed"](look)
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the module: `clock.now` is the moment."""
    fake = SimpleNamespace(now=0.0, sleep=lambda _: None)
    fake.monotonic = lambda: fake.now
    monkeypatch.setattr(watch, "time", fake)
    monkeypatch.setattr(watch, "TICK_S", 0.001)
    monkeypatch.setattr(watch, "LOOK_S", 0.001)
    return fake


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released at each attempt to kill what the watchdog looks after, without killing anything."""
    attempts = threading.Semaphore(0)
    monkeypatch.setattr(process_tree, "kill_group", lambda pid: attempts.release())
    return attempts


def test_the_time_is_kept_while_a_look_takes_forever(
    clock: SimpleNamespace, killed: threading.Semaphore, tmp_path: Path
) -> None:
    looks, ends = threading.Event(), threading.Event()

    def listed(look: Look) -> list[Entry]:
        looks.set()
        try:
            while True:
                look.check()
        except StoppedError:
            ends.set()
            raise

    dog = Watchdog(Submission(tmp_path, listed))
    dog.allow_until(10.0, "fit")
    assert looks.wait(PATIENCE_S)
    clock.now = 10.5
    assert killed.acquire(timeout=PATIENCE_S)
    assert dog.verdict == "ran out of time: fit"
    assert ends.wait(PATIENCE_S)  # nobody waits for the look any more
    assert killed.acquire(timeout=PATIENCE_S)  # at each tick: some start others before they end
    dog.stop()
    assert not any(thread.is_alive() for thread in dog._threads)


def test_a_look_that_ends_after_the_watchdog_judges_nobody(
    clock: SimpleNamespace, killed: threading.Semaphore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be that of another process by then."""
    monkeypatch.setattr(watch, "JOIN_S", 0.001)
    looks, go_on = threading.Event(), threading.Event()

    def listed(look: Look) -> list[Entry]:
        looks.set()
        assert go_on.wait(PATIENCE_S)  # as if it were in a long read in the kernel
        raise TooManyError("had too much")

    dog = Watchdog(Submission(tmp_path, listed))
    assert looks.wait(PATIENCE_S)
    dog.stop()
    go_on.set()
    for thread in dog._threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert not dog.verdict and not killed.acquire(blocking=False)


def raising(error: Exception) -> Callable[[Look], list[Entry]]:
    def listed(look: Look) -> list[Entry]:
        raise error

    return listed


@pytest.mark.parametrize(
    ("listed", "verdict"),
    [
        (raising(TooManyError("had more than 9 mappings")), "had more than 9 mappings"),
        (raising(KeyError("x")), "could not be watched (KeyError: 'x')"),
        (
            lambda _: [Entry(n, 1, 0) for n in range(300)],
            "had 300 processes at a time, at most 200 are allowed",
        ),
        (lambda _: [Entry(1, 1, 0, threads=70_000)], "had 70000 threads at a time, at most "),
    ],
)
def test_what_a_look_finds_is_the_verdict(
    listed: Callable[[Look], list[Entry]],
    verdict: str,
    clock: SimpleNamespace,
    killed: threading.Semaphore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "MAX_PROCESSES", 200)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    dog = Watchdog(Submission(tmp_path, listed))
    assert killed.acquire(timeout=PATIENCE_S)
    assert dog.verdict.startswith(verdict)
    dog.allow_until(-1.0, "fit")
    dog.stop()
    assert dog.verdict.startswith(verdict)  # the first one stays


def test_strays_without_end_are_hunted_for_a_while_only(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a second to look at. The time is up in the middle of a round."""
    asked = list[int]()

    def is_orphan(entry: Entry) -> bool:
        asked.append(entry.pid)
        clock.now += 1
        return True

    mine = os.getpid()
    monkeypatch.setattr(watch, "_entries", lambda: (Entry(PID + n, mine, 0) for n in range(1000)))
    monkeypatch.setattr(watch, "is_orphan", is_orphan)
    watch.end_strays(lambda _: False)
    assert watch.END_S <= len(asked) <= watch.END_S + 1


def test_the_hunt_goes_on_after_a_round_that_saw_only_dead_ones(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one of a chain may have started the next after the processes were listed."""
    mine, killed, reaped = os.getpid(), list[int](), list[int]()
    rounds = [
        [Entry(PID + 1, mine, 0, is_over=True)],
        [Entry(PID + 3, mine, 0), Entry(PID + 2, mine, 0, is_over=True)],
        [Entry(PID + 3, mine, 0, is_over=True)],
    ]
    monkeypatch.setattr(watch, "_entries", lambda: iter(rounds.pop(0) if rounds else []))
    monkeypatch.setattr(watch, "is_orphan", lambda entry: True)
    monkeypatch.setattr(watch, "kill_processes", lambda each: killed.extend(entry.pid for entry in each))
    monkeypatch.setattr(process_tree, "reap", reaped.append)
    watch.end_strays(lambda _: False)
    assert PID + 3 in killed and not rounds
    assert reaped == [PID + 1, PID + 2, PID + 3]


ORPHANS = """
import ctypes, os
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges, as in a sandbox
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is adopted")
def test_what_has_been_adopted_is_reaped_and_the_status_of_a_child_is_left_to_who_waits_for_it() -> None:
    if process_tree.is_confined(os.getpid()):
        pytest.skip("this process has no new privileges either: orphans cannot be told")
    adopt_orphans()
    before = watch.descendants()
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"], start_new_session=True)
    subprocess.run([sys.executable, "-c", ORPHANS], check=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    watch.end_strays(lambda _: False)
    assert watch.descendants() - before == {child.pid}
    assert child.wait() == 7


def test_nothing_is_left_of_a_watchdog(tmp_path: Path) -> None:
    before = threading.active_count()
    for _ in range(3):
        Watchdog(Submission(tmp_path, lambda _: [])).stop()
    assert threading.active_count() == before
    assert PID not in process_tree.watched
