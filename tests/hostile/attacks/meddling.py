"""Attacks on other processes and on the machine. Each does what shows that it is allowed, and no harm."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
from pathlib import Path

from calls import call
from reporting import GIVEN, Attack

PARENT = int(GIVEN["pid"])
F_SETSIG, F_SETOWN_EX, OWNER_IS_PROCESS = 10, 15, 1
USER_KEYRING, SEARCH_KEYS = -4, 10
OPEN_AT, WORKING_FOLDER = 18, -100
SYSTEM_V_KEY = int(GIVEN["system_v_key"])
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000


def send_signal() -> object:
    os.kill(PARENT, 0)
    return "sent"


def send_signal_by_descriptor() -> object:
    signal.pidfd_send_signal(os.pidfd_open(PARENT), 0)
    return "sent"


def send_signal_by_owner() -> object:
    """The kernel sends it when the other end of a pipe is written to. What arrives, the test sees."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, F_SETOWN_EX, struct.pack("ii", OWNER_IS_PROCESS, PARENT))
    fcntl.fcntl(reading, F_SETSIG, signal.SIGWINCH)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writing, b"x")
    return ""


def change_priority() -> object:
    os.setpriority(os.PRIO_PROCESS, PARENT, os.getpriority(os.PRIO_PROCESS, PARENT))
    return "set"


def change_processors() -> object:
    os.sched_setaffinity(PARENT, os.sched_getaffinity(PARENT))
    return "set"


def change_limits() -> object:
    """With another one, that of processor time, it could end ingestion."""
    resource.prlimit(PARENT, resource.RLIMIT_RTTIME, resource.prlimit(PARENT, resource.RLIMIT_RTTIME))
    return "set"


def set_clock() -> object:
    """The time zone of the kernel, as it is by default: this asks for the same privilege as the time."""
    call("settimeofday", None, struct.pack("ii", 0, 0))
    return "set"


def set_host_name() -> object:
    """Of this machine: in a namespace of its own it would change its own."""
    if os.uname().nodename != GIVEN["host"] or str(Path("/proc/self/ns/uts").readlink()) != GIVEN["uts"]:
        return ""
    name = os.uname().nodename.encode()
    call("sethostname", name, len(name))
    return "set"


def list_kernel_programs() -> object:
    """The first program of BPF that is loaded: who may ask may load one, and read the memory of the kernel."""
    attributes = ctypes.create_string_buffer(16)
    try:
        call("bpf", 11, attributes, len(attributes))
    except FileNotFoundError:  # there is none
        return "asked"
    return "found one"


def mount_memory() -> object:
    """A file system in memory, in namespaces of its own, where no limit would count what lies in it."""
    Path("memory").mkdir()
    if (child := os.fork()) == 0:
        try:
            call("unshare", NEW_USER | NEW_MOUNTS)
            call("mount", b"tmpfs", b"memory", b"tmpfs", 0, None)
        except OSError:
            os._exit(1)
        os._exit(0)
    return "mounted" if os.waitpid(child, 0)[1] == 0 else ""


def connect(family: int, address: tuple[str, int] | str) -> Attack:
    def attack() -> object:
        with socket.socket(family) as client:
            client.settimeout(2)
            client.connect(address)
        return "connected"

    return attack


def send_datagram() -> object:
    """What arrives, the test sees."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hostile", ("127.0.0.1", GIVEN["udp_port"]))
    return ""


def read_shared_memory() -> object:
    return [path.read_text() for path in Path("/dev/shm").iterdir() if path.name == GIVEN["shared_name"]]


def write_shared_memory() -> object:
    path = Path("/dev/shm", GIVEN["shared_name"])
    if not path.exists():
        return ""
    path.write_text("changed")
    return "written"


def read_system_v() -> object:
    segment = call("shmget", SYSTEM_V_KEY, 0, 0)
    return f"found {segment}"


def write_to_terminal() -> object:
    with Path(GIVEN["terminal"]).open("wb", buffering=0) as terminal:
        terminal.write(b"hostile")
    return "written"


def write_to_kernel_log() -> object:
    os.close(os.open("/dev/kmsg", os.O_WRONLY))
    return "opened"


def read_keyring() -> object:
    return f"key {call('keyctl', SEARCH_KEYS, USER_KEYRING, b'user', GIVEN['key'].encode(), 0)}"


def leave_key() -> object:
    """Whether it is there, the test sees."""
    call("add_key", b"user", GIVEN["left_key"].encode(), b"note", 4, USER_KEYRING)
    return ""


def fault_in_user_space() -> object:
    """It may, for memory of its own; then nothing else may change."""
    os.close(call("userfaultfd", os.O_CLOEXEC))
    return ""


def open_by_ring() -> object:
    """Lets the kernel open the labels by a ring of requests (io_uring), past filters of system calls."""
    parameters = ctypes.create_string_buffer(120)
    ring = call("io_uring_setup", 1, parameters)
    words = struct.unpack_from("<30I", parameters.raw)
    tail_at, array_at, done_at, result_at = words[11], words[16], words[21], words[25]
    length = max(array_at + 4, result_at + 16 * words[1])
    requests = mmap.mmap(ring, length, offset=0)
    entries = mmap.mmap(ring, 64, offset=0x10000000)
    path = ctypes.create_string_buffer(GIVEN["labels"].encode())
    entries[:64] = struct.pack(
        "<BBHiQQII", OPEN_AT, 0, 0, WORKING_FOLDER, 0, ctypes.addressof(path), 0, os.O_RDONLY
    ).ljust(64, b"\0")
    requests[array_at : array_at + 4] = struct.pack("<I", 0)
    requests[tail_at : tail_at + 4] = struct.pack("<I", 1)
    call("io_uring_enter", ring, 1, 1, 1, None, 0)
    done = requests if words[5] & 1 else mmap.mmap(ring, result_at + 32, offset=0x8000000)
    if struct.unpack_from("<I", done, done_at)[0] != 1:
        raise OSError("the ring has no answer")
    result = struct.unpack_from("<Qi", done, result_at)[1]
    return os.read(result, 20) if result >= 0 else ""


ATTACKS: dict[str, Attack] = {
    "signal to ingestion": send_signal,
    "signal to ingestion, by pidfd": send_signal_by_descriptor,
    "signal to ingestion, by F_SETOWN": send_signal_by_owner,
    "priority of ingestion": change_priority,
    "processors of ingestion": change_processors,
    "limits of ingestion, prlimit": change_limits,
    "clock of the machine": set_clock,
    "name of the machine": set_host_name,
    "programs in the kernel, bpf": list_kernel_programs,
    "log of the kernel": write_to_kernel_log,
    "memory by a mount of its own": mount_memory,
    "network, TCP": connect(socket.AF_INET, ("127.0.0.1", GIVEN["tcp_port"])),
    "network, UDP": send_datagram,
    "socket of another program, by path": connect(socket.AF_UNIX, GIVEN["unix_path"]),
    "socket of another program, abstract": connect(socket.AF_UNIX, "\0" + GIVEN["abstract_name"]),
    "shared memory of another program, read": read_shared_memory,
    "shared memory of another program, written": write_shared_memory,
    "shared memory of another program, System V": read_system_v,
    "terminal of the user": write_to_terminal,
    "keyring of the user, read": read_keyring,
    "keyring of the user, written": leave_key,
    "userfaultfd": fault_in_user_space,
    "labels by io_uring": open_by_ring,
}  # fmt: skip
