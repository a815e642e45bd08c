"""The filter of system calls: what it refuses, by running its program, and what a confined process meets."""

from __future__ import annotations

import errno
import platform
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from ingestion import seccomp
from ingestion.access import PACKAGE_ROOT, Access, child_environment, readable_folders
from ingestion.confinement import landlock_trouble
from ingestion.sandbox import confine
from ingestion.seccomp import (
    ALLOW,
    ALWAYS,
    AUDIT,
    NO_NETWORK,
    NUMBERS,
    OWN_NETWORK,
    REFUSE,
    SEALED,
    build_filter,
    rules_under_landlock,
    seccomp_trouble,
)

ALLOWED = 0
OPENS, READS = {"x86_64": 257, "aarch64": 56}, {"x86_64": 0, "aarch64": 63}
"""The numbers of `openat` and `read`."""
Sandbox = Literal["bubblewrap", "landlock"]


def run_filter(program: bytes, number: int, audit: int, *arguments: int) -> int:
    """What the program answers to a call: an error, or 0 where it is allowed."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, audit, 0, *words)
    place, held = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, 8 * place)
        place += 1
        if code == seccomp.RETURN:
            return ALLOWED if value == ALLOW else value & ~REFUSE
        if code == seccomp.LOAD:
            held = struct.unpack_from("=I", data, value)[0]
            continue
        holds = {
            seccomp.JUMP_EQUAL: held == value,
            seccomp.JUMP_AT_LEAST: held >= value,
            seccomp.JUMP_BITS: bool(held & value),
        }[code]
        place += yes if holds else no


@pytest.fixture(params=sorted(AUDIT))
def ask(request: pytest.FixtureRequest) -> Callable[..., int]:
    """`ask(rules, call, *arguments)`: the answer for a call by name on a processor."""
    machine: str = request.param

    def answer(rules: tuple[seccomp.Rule, ...], call: str, *arguments: int) -> int:
        number = NUMBERS[call][list(AUDIT).index(machine)]
        assert number is not None, call
        return run_filter(build_filter(rules, machine), number, AUDIT[machine], *arguments)

    return answer


@pytest.mark.parametrize(
    "call", ["ptrace", "process_vm_readv", "bpf", "keyctl", "mount", "setns", "pidfd_getfd", "kexec_load"]
)
def test_calls_that_no_learner_needs_are_refused(ask: Callable[..., int], call: str) -> None:
    assert ask(ALWAYS, call) == errno.EPERM


def test_calls_that_libraries_try_are_unknown_to_the_kernel(ask: Callable[..., int]) -> None:
    for call in ("clone3", "io_uring_setup", "shmget", "semget", "msgget", "mq_open"):
        assert ask(ALWAYS, call) == errno.ENOSYS


def test_arguments_decide(ask: Callable[..., int]) -> None:
    new_user, thread, sibling = 0x10000000, 0x3D0F00, 1234
    assert ask(ALWAYS, "clone", thread) == ALLOWED
    assert ask(ALWAYS, "clone", new_user | 17) == errno.EPERM
    assert ask(ALWAYS, "unshare", 0x400) == ALLOWED  # its own table of open files
    assert ask(ALWAYS, "unshare", new_user) == errno.EPERM
    assert ask(ALWAYS, "ioctl", 0, 0x5413) == ALLOWED  # the size of a terminal
    assert ask(ALWAYS, "ioctl", 0, 0x5412) == ask(ALWAYS, "ioctl", 0, 0x541C) == errno.EPERM
    assert ask(ALWAYS, "prlimit64", 0, 7) == ALLOWED
    assert ask(ALWAYS, "prlimit64", sibling, 7) == errno.EPERM
    assert ask(ALWAYS, "setpriority", 0, 0, 5) == ALLOWED
    assert ask(ALWAYS, "setpriority", 0, sibling, 5) == ask(ALWAYS, "setpriority", 2, 0, 5) == errno.EPERM


@pytest.mark.parametrize(
    ("rules", "open_kinds"),
    [
        (NO_NETWORK, {seccomp.UNIX}),
        (OWN_NETWORK, {1, 2, 10, 16}),
        (rules_under_landlock(sealed=False), {seccomp.UNIX}),
        (rules_under_landlock(sealed=True), set()),
        (rules_under_landlock(sealed=True, beside_gpu=True), {seccomp.UNIX}),
    ],
)
def test_sockets_are_those_that_lead_nowhere_else(
    ask: Callable[..., int], rules: tuple[seccomp.Rule, ...], open_kinds: set[int]
) -> None:
    answers = {family: ask((*ALWAYS, *rules), "socket", family, 1, 0) for family in range(46)}
    assert {family for family, error in answers.items() if error == ALLOWED} == open_kinds
    assert set(answers.values()) <= {ALLOWED, errno.EAFNOSUPPORT}


def test_a_seal_keeps_files_as_they_are_and_sockets_in_pairs(ask: Callable[..., int]) -> None:
    for call in ("fchmodat", "fchownat", "utimensat", "setxattr", "connect"):
        assert ask((*ALWAYS, *SEALED), call) == errno.EPERM
        assert ask(ALWAYS, call) == ALLOWED
    assert ask(SEALED, "socketpair", 1, 1) == ALLOWED
    assert ask(SEALED, "socketpair", 1, 2) == errno.EAFNOSUPPORT  # datagrams can be sent to any path


def test_beside_a_gpu_a_sealed_process_has_sockets_without_connections(ask: Callable[..., int]) -> None:
    rules = rules_under_landlock(sealed=True, beside_gpu=True)
    for kind, error in (
        (1, ALLOWED),
        (5, ALLOWED),
        (5 | 0x80000, ALLOWED),
        (2, errno.EAFNOSUPPORT),
        (3, errno.EAFNOSUPPORT),
    ):
        assert ask(rules, "socket", seccomp.UNIX, kind) == error
    assert ask(rules, "socket", seccomp.INET, 1) == errno.EAFNOSUPPORT
    for call in ("connect", "accept", "accept4"):
        assert ask(rules, call) == errno.EPERM


WAITS_AS_THE_DRIVER = """
import os, socket
name = "\\0as-the-driver-%d" % os.getpid()
waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
waiting.bind(name)
waiting.listen(16)
other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for attempt in (lambda: other.connect(name), waiting.accept, lambda: other.sendmsg([b"word"], [], 0, name),
                lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), lambda: socket.socket(socket.AF_INET)):
    try: attempt()
    except OSError: continue
    raise AssertionError(attempt)
print("alone")
"""


@pytest.mark.medium
def test_a_sealed_process_beside_a_gpu_waits_as_the_driver_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if trouble := landlock_trouble() or seccomp_trouble():
        pytest.skip(f"--sandbox landlock: {trouble}")
    monkeypatch.setattr("ingestion.sandbox.gpu_devices", lambda: [Path("/dev/null")])
    access = replace(Access(readable_folders(), (), tmp_path.resolve()), sealed=True)
    command = confine("landlock", [sys.executable, "-c", WAITS_AS_THE_DRIVER], access)
    environment = child_environment(tmp_path, {})
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "alone\n", done.stderr


@pytest.mark.parametrize("machine", sorted(AUDIT))
def test_calls_of_another_processor_are_refused(machine: str) -> None:
    program = build_filter((*ALWAYS, *NO_NETWORK), machine)
    for number in (OPENS[machine], READS[machine]):
        assert run_filter(program, number, AUDIT[machine], 3, 0, 100) == ALLOWED
        assert run_filter(program, number, 0x40000003) == errno.EPERM  # 32-bit x86
    if machine == "x86_64":
        assert run_filter(program, seccomp.X32 + 1, AUDIT[machine]) == errno.ENOSYS
    assert len(program) // 8 < 4096  # the most that a kernel takes


def test_what_has_no_filter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp_trouble("riscv64") == "no filter is known for the processor riscv64"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert seccomp_trouble("arm64") == "seccomp is a part of Linux, this is darwin"


ATTEMPTS = """
import ctypes, os, resource, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
sealed = {sealed}

def refused(what, attempt):
    try: attempt()
    except OSError: return
    raise AssertionError(what)

def call(name, *words):
    if getattr(libc, name)(*words) < 0: raise OSError(ctypes.get_errno(), name)

for family in {families}:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        refused(family, lambda: socket.socket(family, kind))
for name, *words in (("ptrace", 0, 0, 0, 0), ("unshare", 0x10000000), ("mount", 0, 0, 0, 0, 0),
                     ("shmget", 1, 9, 0o1600), ("setns", 0, 0), ("chroot", b"/"), ("msgget", 1, 0o1600),
                     ("klogctl", 3, 0, 0)):
    refused(name, lambda: call(name, *words))
refused("limits of others", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU))
refused("priority of others", lambda: os.setpriority(os.PRIO_PGRP, 0, 5))
open("own", "w").close()
for attempt in (lambda: os.chmod("own", 0o700), lambda: os.utime("own"), lambda: socket.socket(socket.AF_UNIX),
                lambda: open("/dev/shm/note", "w"), lambda: os.setxattr("own", "user.note", b"1")):
    if sealed: refused(attempt, attempt)
if not sealed: os.chmod("own", 0o700); socket.socket(socket.AF_UNIX).close(); open("/dev/shm/note", "w").close()
if not sealed: os.unlink("/dev/shm/note")
ours, theirs = socket.socketpair()
if (child := os.fork()) == 0: theirs.send(b"child"); os._exit(0)
assert ours.recv(9) == b"child" and os.waitpid(child, 0)[1] == 0
worker = threading.Thread(target=lambda: ours.send(b"thread")); worker.start(); worker.join()
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.memfd_create("memory"); os.nice(0)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for device in ("/dev/null", "/dev/urandom"): os.close(os.open(device, os.O_RDONLY))
for device in os.listdir("/dev"):
    if device.startswith(("vd", "sd", "nvme", "loop", "mem", "kmsg", "tty", "ptmx")) and {bare}:
        refused(device, lambda: os.open("/dev/" + device, os.O_RDONLY | os.O_NONBLOCK))
assert "CapEff:\\t{powers}\\n" in open("/proc/self/status").read()
print("confined")
"""


@pytest.mark.medium
@pytest.mark.parametrize("sealed", [False, True])
def test_a_confined_process_meets_the_filter(sandbox: Sandbox, sealed: bool, tmp_path: Path) -> None:
    if trouble := seccomp_trouble():
        pytest.skip(f"--sandbox {sandbox}: {trouble}")
    if sealed and sandbox == "bubblewrap":
        return  # which has all of its own, and needs no seal
    bare, root = (
        sandbox == "landlock",
        Path("/proc/self/status").read_text().count("CapEff:\t0000000000000000\n"),
    )
    families = "range(2, 46)" if bare else "{17, 29, 30, 38, 40, 44}"
    powers = "0000000000000000" if root or not bare else "0000000000000002"
    code = ATTEMPTS
    for name, value in (("sealed", sealed), ("families", families), ("bare", bare), ("powers", powers)):
        code = code.replace(f"{{{name}}}", str(value))
    access = replace(Access(readable_folders(), (), tmp_path.resolve()), sealed=sealed)
    command = confine(sandbox, [sys.executable, "-c", code], access)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=child_environment(tmp_path, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "confined\n", done.stderr


LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset
batches = [batch for batch, in DataLoader(TensorDataset(torch.arange(8.0)), batch_size=2, num_workers=1)]
print(sum(batch.sum() for batch in batches).item(), platform.machine())
"""


@pytest.mark.medium
def test_workers_of_pytorch_pass_tensors_on_under_landlock(tmp_path: Path) -> None:
    if seccomp_trouble():
        pytest.skip(f"--sandbox landlock: {seccomp_trouble()}")
    access = Access((*readable_folders(), PACKAGE_ROOT), (), tmp_path.resolve())
    command = confine("landlock", [sys.executable, "-c", "import platform" + LOADER], access)
    environment = child_environment(tmp_path, {})
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["28.0", platform.machine()], done.stderr
