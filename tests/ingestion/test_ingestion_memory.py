"""The memory of processes: what counts, how often, and what ingestion has handed over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from ingestion_runs import Runner
from synthetic import MakeBundle, write_meta_album

from ingestion import memory
from ingestion.disk import DiskMeter
from ingestion.memory import Look, MemoryMeter, StoppedError, TooManyError, inode_of
from ingestion.process_tree import adopt_orphans
from ingestion.shared_images import SharedImages
from ingestion.watch import Watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the meter reads /proc of Linux")

SIZE = 64 * 2**20
ROOM = SIZE // 4
"""What Python itself holds, and more."""
Hold = Callable[..., int]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """`hold(code)`: the process id of a program that has run this code and waits."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str, *fds: int) -> int:
        before = f"import mmap, os, signal, sys, time\nSIZE = {SIZE}\n"
        after = "\nos.write(1, b'!')\ntime.sleep(60)\n"
        program = before + textwrap.dedent(code) + after
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, pass_fds=fds)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.read(1) == b"!"
        return process.pid

    yield start
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()


def exact(meter: MemoryMeter, *pids: int) -> int:
    return meter.used_bytes(pids, limit_bytes=0)


@pytest.mark.parametrize(
    "code",
    [
        "kept = bytearray(os.urandom(SIZE))",
        "fd = os.memfd_create('x'); os.write(fd, bytes(SIZE))",
        "fd = os.memfd_create('x'); os.write(fd, bytes(SIZE)); kept = mmap.mmap(fd, SIZE); sum(kept[::4096])",
        "kept = mmap.mmap(-1, SIZE); kept.write(bytes(SIZE))",
        "f = open('/dev/shm/autometa-test-held', 'w+b', 0); f.write(bytes(SIZE)); os.unlink(f.name)",
    ],
    ids=["private", "memfd", "mapped memfd", "shared", "file in /dev/shm without a name"],
)
def test_memory_of_every_kind_counts_once(hold: Hold, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_named_files", lambda: ())  # those of tests that run beside this one
    meter = MemoryMeter({}, private=False)
    pid = hold(code)
    assert SIZE <= exact(meter, pid) < SIZE + ROOM
    bound = meter.used_bytes([pid], None)
    assert bound >= exact(meter, pid) - ROOM
    assert bound < 2 * SIZE + ROOM


def test_a_file_in_shared_memory_that_nobody_holds_counts_and_that_of_another_program_does_not(
    hold: Hold, tmp_path: Path
) -> None:
    file = Path("/dev/shm") / f"autometa-test-{os.getpid()}"
    try:
        meter = MemoryMeter({}, private=False)
        pid = hold(f"open({str(file)!r}, 'wb', 0).write(bytes(SIZE))")
        assert SIZE <= exact(meter, pid) < SIZE + ROOM
        with file.open("rb"):  # this process is not one of the submission's
            assert exact(meter, pid) < ROOM
        assert exact(MemoryMeter({}, private=False), pid) < ROOM  # there before the meter
    finally:
        file.unlink()


def test_pages_that_processes_share_count_once(hold: Hold) -> None:
    pid = hold("""
        kept = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        kept.write(bytes(SIZE))
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(60)
        time.sleep(0.1)
    """)
    tree = [pid, *(child.pid for child in psutil.Process(pid).children())]
    assert len(tree) == 4
    assert SIZE <= exact(MemoryMeter({}, private=False), *tree) < SIZE + 4 * ROOM


def test_images_that_ingestion_hands_over_do_not_count(hold: Hold) -> None:
    shared = SharedImages(SIZE)
    shared.put(np.ones((1, 1, 1024, SIZE // 1024), dtype=np.uint8), np.array([0]))
    code = f"kept = mmap.mmap({shared.fd}, SIZE, access=mmap.ACCESS_READ); sum(kept[::4096])"
    pid = hold(code, shared.fd)
    given = {inode_of(os.fstat(shared.fd)): SIZE}
    assert exact(MemoryMeter(given, private=False), pid) < ROOM
    assert exact(MemoryMeter({}, private=False), pid) >= SIZE
    shared.close()


def test_processes_that_left_the_tree_are_watched_and_others_are_not(hold: Hold, tmp_path: Path) -> None:
    adopt_orphans()
    earlier = {p.pid for p in psutil.Process().children(recursive=True)}  # of other tests in this process
    disk = DiskMeter((tmp_path,), {})
    child = hold("""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: time.sleep(60)
            os._exit(0)
        os.wait()
        if os.fork() == 0: time.sleep(60)
    """)
    stranger = hold("")
    other = psutil.Process(child).children()[0].pid
    orphans = {p.pid for p in psutil.Process().children()} - earlier - {child, stranger}
    assert len(orphans) == 1

    def found(is_stray: Callable[[psutil.Process], bool], *beside: int) -> set[int]:
        watched = Watched(child, None, None, disk, is_stray, beside)
        return {process.pid for process in watched.processes()} - earlier

    assert found(lambda process: process.pid in orphans) == {child, other, *orphans}
    assert found(lambda process: False, stranger) == {child, other, stranger}
    psutil.Process(orphans.pop()).kill()


MAPPED = """
    import ctypes
    for _ in range(50):
        fd = os.memfd_create('x')
        os.ftruncate(fd, 4096)
        mmap_ = ctypes.CDLL(None).mmap
        mmap_.restype = ctypes.c_void_p
        mmap_.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
        mmap_(None, 4096, 3, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
"""
"""Fifty files in memory, each of which a mapping alone keeps."""


def test_a_file_that_many_processes_map_is_asked_once(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = hold(MAPPED + "    if os.fork() == 0: time.sleep(60)")
    (child,) = psutil.Process(parent).children()
    asked, ask = list[str](), os.stat

    def counted(path: str) -> os.stat_result:
        asked.append(path)
        return ask(path)

    look = Look()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", counted)
        found = [len(list(look.mapped_files(pid))) for pid in (parent, child.pid)]
    if found[0] == 0:
        pytest.skip("this process has not the privileges to see such files")
    assert found == [50, 50] and len(asked) == 50


def test_more_mappings_than_anybody_looks_at_are_too_many(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = [hold(MAPPED), hold(MAPPED)]
    meter = MemoryMeter({}, private=False)
    monkeypatch.setattr(memory, "MAX_MAPPINGS", 50)
    with pytest.raises(TooManyError, match="had more than 50 mappings in a process, the most"):
        meter.used_bytes(pids[:1], None)
    monkeypatch.setattr(memory, "MAX_MAPPINGS", 10_000)
    monkeypatch.setattr(memory, "MAX_MAPPINGS_TOGETHER", 100)
    with pytest.raises(TooManyError, match="had more than 100 mappings in its processes, the most"):
        meter.used_bytes(pids, None)


def test_only_the_submission_may_have_no_more_than_so_many_open_files(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_OPEN_FILES", 20)
    pid = hold("kept = [os.memfd_create('x') for _ in range(30)]")
    assert len(list(Look().open_files(pid, stranger=True))) >= 30
    with pytest.raises(TooManyError, match="had more than 20 open files in a process, the most"):
        list(Look().open_files(pid))


def test_a_look_that_nobody_waits_for_ends_in_the_middle(
    hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CHECK_EVERY", 1)
    pid = hold(MAPPED)
    disk = DiskMeter((tmp_path,), {})
    looks: list[Callable[[Look], object]] = [
        lambda look: list(look.mapped_files(pid)),
        lambda look: list(look.open_files(pid)),
        lambda look: MemoryMeter({}, private=False).used_bytes([pid], 0, look),
        lambda look: disk.excess([pid], look),
    ]
    for take in looks:
        answers = iter([False, False, True])
        with pytest.raises(StoppedError):
            take(Look(lambda answers=answers: next(answers)))  # type: ignore[misc]
        assert next(answers, None) is None


def test_a_process_that_has_ended_holds_nothing() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert exact(MemoryMeter({}, private=False), done.pid) == 0


@pytest.mark.medium
def test_a_run_tells_how_much_memory_each_phase_took(tmp_path: Path, make_bundle: MakeBundle) -> None:
    wait = """
        held = np.ones(2**24)
        time.sleep(0.6)
        return MyLearner()
    """
    run = Runner(write_meta_album(tmp_path / "SET", [9] * 8), tmp_path / "out")
    run(make_bundle(meta_fit=wait), memory_budget_bytes=2**31, test_tasks_per_dataset=1)
    peaks = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert 2**26 < peaks["meta-train"] < 2**31
    assert set(peaks) <= {"meta-train", "meta-test"}
