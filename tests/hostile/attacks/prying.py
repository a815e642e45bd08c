"""Attacks that look for the labels: in the memory of ingestion, in its files, behind links and descriptors."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from calls import Vector, call
from reporting import GIVEN, Attack

PARENT = int(GIVEN["pid"])
LABELS, TRUTH = Path(GIVEN["labels"]), Path(GIVEN["truth"])
SEIZE, DETACH = 0x4206, 17
AT_FDCWD, HANDLE_BYTES = -100, 128
NEARBY = 2000
BIND, DETACHED = 4096, 2
BLOCK_DEVICE = 0o060600


def read_memory_file() -> object:
    with Path(f"/proc/{PARENT}/mem").open("rb"):
        return "opened"


def read_memory_by_call() -> object:
    ours = ctypes.create_string_buffer(8)
    local = Vector(ctypes.cast(ours, ctypes.c_void_p), 8)
    remote = Vector(GIVEN["address"], 8)
    return call("process_vm_readv", PARENT, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


def trace() -> object:
    call("ptrace", SEIZE, PARENT, 0, 0)
    call("ptrace", DETACH, PARENT, 0, 0)
    return "traced"


def take_descriptor() -> object:
    pidfd = os.pidfd_open(PARENT)
    return [call("pidfd_getfd", pidfd, fd, 0) for fd in range(3)]


def compare_kernel_objects() -> object:
    return f"compared {call('kcmp', PARENT, os.getpid(), 0, 0, 0)}"


def read_of_parent(name: str) -> Attack:
    return lambda: Path(f"/proc/{PARENT}/{name}").read_bytes()


def list_descriptors() -> object:
    return list(Path(f"/proc/{PARENT}/fd").iterdir())


def read_environments() -> object:
    """Of the processes that began about when ingestion did: a program of the test has a secret in it."""
    found = []
    for pid in range(max(PARENT - NEARBY, 1), PARENT + NEARBY):
        try:
            content = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        found += [pid] if GIVEN["secret"].encode() in content else []
    return found


def read(path: Path) -> Attack:
    return lambda: path.read_bytes()[:20]


def read_any(*paths: Path) -> Attack:
    def attack() -> object:
        found = []
        for path in paths:
            try:
                found.append(path.read_bytes()[:20])
            except OSError:
                continue
        return found

    return attack


def read_by_link() -> object:
    Path("link").symlink_to(LABELS)
    return Path("link").read_bytes()[:20]


def read_by_hard_link() -> object:
    os.link(LABELS, "hard")
    return Path("hard").read_bytes()[:20]


def move_here() -> object:
    LABELS.rename("moved")
    return "moved"


def read_by_handle() -> object:
    """Opens a file by its number, without a path, as privileges allow."""
    handle = ctypes.create_string_buffer(8 + HANDLE_BYTES)
    ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint))[0] = HANDLE_BYTES
    mount = ctypes.c_int()
    call("name_to_handle_at", AT_FDCWD, str(LABELS).encode(), handle, ctypes.byref(mount), 0)
    at = os.open(".", os.O_RDONLY)
    return os.read(call("open_by_handle_at", at, handle, os.O_RDONLY), 20)


def read_by_mount() -> object:
    Path("mounted").mkdir()
    call("mount", str(LABELS.parent).encode(), b"mounted", None, BIND, None)
    try:
        return Path("mounted", LABELS.name).read_bytes()[:20]
    finally:
        call("umount2", b"mounted", DETACHED)


def climb_out_of_root() -> object:
    """The way out of a `chroot`: a folder that is open outside of it."""
    Path("root").mkdir()
    outside = os.open(".", os.O_RDONLY)
    if (child := os.fork()) == 0:
        try:
            os.chroot("root")
            os.fchdir(outside)
            for _ in range(64):
                os.chdir("..")
            os.chroot(".")
            os._exit(0 if LABELS.read_bytes() else 1)
        except OSError:
            os._exit(1)
    return "read" if os.waitpid(child, 0)[1] == 0 else ""


def use_descriptors() -> object:
    """Every descriptor that it has: where it leads, and what lies beside and above."""
    found = []
    for number in [int(fd.name) for fd in Path("/proc/self/fd").iterdir()]:
        for path in ("labels.csv", "../labels.csv", "truth.json", "../truth.json", "../out/truth.json"):
            try:
                found.append(os.open(path, os.O_RDONLY, dir_fd=number))
            except OSError:
                continue
    return found


def read_disk() -> object:
    """The file system below the files: block devices, the memory of the machine, and a device of its own making."""
    found = []
    device = LABELS.parent.parent  # its name can be walked to under Landlock, and not opened
    for path in sorted(Path("/dev").iterdir()):
        if path.is_block_device() or path.name in ("mem", "port", "kcore"):
            try:
                os.close(os.open(path, os.O_RDONLY))
            except OSError:
                continue
            found.append(path.name)
    try:
        os.mknod("disk", BLOCK_DEVICE, device.stat().st_dev)
        os.close(os.open("disk", os.O_RDONLY))
        found.append("a device that it made")
    except OSError:
        return found
    return found


ATTACKS: dict[str, Attack] = {
    "memory of ingestion, /proc/PID/mem": read_memory_file,
    "memory of ingestion, process_vm_readv": read_memory_by_call,
    "memory of ingestion, ptrace": trace,
    "descriptors of ingestion, pidfd_getfd": take_descriptor,
    "descriptors of ingestion, /proc/PID/fd": list_descriptors,
    "kernel objects of ingestion, kcmp": compare_kernel_objects,
    "environment of ingestion": read_of_parent("environ"),
    "mappings of ingestion": read_of_parent("maps"),
    "environments of other processes": read_environments,
    "labels by path": read(LABELS),
    "truth by path": read(TRUTH),
    "truth of an earlier run": read(Path(GIVEN["earlier"])),
    "labels by the root of a process": read_any(*(Path(f"/proc/{p}/root{LABELS}") for p in (1, "self", PARENT))),
    "labels by the folder of a process": read_any(
        *(Path(f"/proc/{p}/cwd", *[".."] * 20, *LABELS.parts[1:]) for p in (1, "self", PARENT))
    ),
    "labels by a link": read_by_link,
    "labels by a hard link": read_by_hard_link,
    "labels moved to the scratch folder": move_here,
    "labels by a file handle": read_by_handle,
    "labels by a mount": read_by_mount,
    "labels out of a chroot": climb_out_of_root,
    "labels beside its descriptors": use_descriptors,
    "the raw disk": read_disk,
}  # fmt: skip
