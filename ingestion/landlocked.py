"""Run a command that can only open files in the named folders, only signal its own processes, and use no network:

    python -m ingestion.landlocked --list=DIR --read=DIR --write=DIR --device=FILE --start=DIR [--sealed] -- COMMAND

(`--list` gives the names in the folder and below, not the files. `--read` also takes a file. The command starts in
the folder of `--start`.) The kernel keeps the restriction after exec and for all children. This is Landlock
(https://docs.kernel.org/userspace-api/landlock.html), called without a library: three system calls, whose numbers are
the same on all processors that PyTorch runs on. With it come the filter of `ingestion.seccomp`, where the kernel has
that, and the loss of the powers of root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from ingestion.seccomp import apply_filter, build_filter, rules_under_landlock, seccomp_trouble

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION = 1
PATH_BENEATH = 1
NO_NEW_PRIVILEGES = 38

READABLE_FOLDERS = (Path("/proc/sys"), Path("/proc/driver"), Path("/sys"))
READABLE_FILES = tuple(
    Path("/proc", name)
    for name in ("cpuinfo", "meminfo", "stat", "version", "filesystems", "devices", "modules")
)
"""The parts of `/proc` about the machine, not about other processes. The driver of a GPU reads some."""
OWN_PROCESS = Path("/proc/self")
"""It may be written too: the driver of a GPU names its threads, which fails to start otherwise."""
DEVICES = Path("/dev")
"""Its names can be listed; only some devices can be opened, as disks and terminals lie there too."""
DEVICE_FILES = tuple(DEVICES / name for name in ("null", "zero", "full", "random", "urandom"))
SHARED_MEMORY = DEVICES / "shm"


EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in (13, 14, 15))
EVERYTHING = (1 << 16) - 1
"""What may be done with files, as the kernel numbers it. Bits 4 to 12: to make and to remove files of each kind."""
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
SINCE_VERSION = {REFER: 2, TRUNCATE: 3, IOCTL_DEV: 5}
READ = READ_FILE | READ_DIR | EXECUTE
MAKE_DEVICES = 1 << 6 | 1 << 11
WRITE = EVERYTHING & ~MAKE_DEVICES
USE_DEVICE = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV

START, DEVICE = "--start", "--device"
"""The folder in which the command starts, and a file of a GPU."""

NETWORK_VERSION = 4
"""The version (Linux 6.7) that also refuses TCP."""
TCP = 3
"""To listen, to connect."""
SCOPES_VERSION = 6
"""The version (Linux 6.12) that also keeps signals and abstract sockets within the sandbox."""
SCOPES = 3
"""Abstract sockets, signals."""

DROP_BOUND, AMBIENT, CLEAR = 24, 47, 4
"""Of `prctl`."""
MOST_CAPABILITIES = 64
CAPABILITIES_FORM = 0x20080522
ANY_OWNER = 1
"""The power of root to use files whoever owns them. Kept, as folders of a container often belong to others."""


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_version() -> int:
    """The version of Landlock in this kernel, from 1; OSError where it has none or it is switched off."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"Landlock is a part of Linux, this is {sys.platform}")
    return _call(CREATE_RULESET, None, 0, ASK_VERSION)


def known_access(version: int) -> int:
    """All that this version can forbid."""
    return EVERYTHING & ~sum(access for access, since in SINCE_VERSION.items() if since > version)


def restrict(rules: list[tuple[Path, int]]) -> None:
    """Allow this process, from now on, only what the rules say of each path and what lies below; no signal leaves it
    and its children where the kernel can keep them. OSError names the path that cannot be opened, or says that the
    kernel has no Landlock."""
    version = landlock_version()
    known = known_access(version)
    tcp, scopes = TCP if version >= NETWORK_VERSION else 0, SCOPES if version >= SCOPES_VERSION else 0
    size = 8 * (3 if scopes else 2 if tcp else 1)
    ruleset = _call(CREATE_RULESET, ctypes.byref(_Ruleset(known, tcp, scopes)), size, 0)
    for path, access in rules:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = access & known & (known if path.is_dir() else OF_FILES)
        _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(_PathBeneath(allowed, fd)), 0)
        os.close(fd)
    if _libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: privileges cannot be given up")
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


class _Capabilities(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint32 * 6),)


def drop_capabilities() -> None:
    """Give up the powers of root, as Landlock looks at files only: all but to use files of any owner. Has no effect
    for other users, who have none."""
    libc = _libc()
    for number in set(range(MOST_CAPABILITIES)) - {ANY_OWNER}:
        libc.prctl(DROP_BOUND, number, 0, 0, 0)  # refused to who has none, and for numbers that mean nothing
    libc.prctl(AMBIENT, CLEAR, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_FORM, 0)
    held = _Capabilities()
    if libc.capget(header, ctypes.byref(held)):
        raise OSError(ctypes.get_errno(), "capget: the powers of this process are not known")
    kept = _Capabilities()
    for word in range(2):  # effective, permitted; inheritable ones are dropped
        kept.words[word] = held.words[word] & 1 << ANY_OWNER
    if libc.capset(header, ctypes.byref(kept)):
        raise OSError(ctypes.get_errno(), "capset: powers cannot be given up")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = ctypes.c_long(_libc().syscall(ctypes.c_long(number), *given)).value
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock, system call {number}: {os.strerror(error)}")
    return result


def main(arguments: list[str]) -> None:
    """Restrict this process, then become the command behind `--`."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    sealed = "--sealed" in options
    granted = {"--list": READ_DIR, "--read": READ, "--write": WRITE, DEVICE: USE_DEVICE}
    named = [
        (kind, Path(path)) for kind, is_path, path in (each.partition("=") for each in options) if is_path
    ]
    rules = [(path, granted[kind]) for kind, path in named if kind != START]
    rules += [(folder, READ) for folder in READABLE_FOLDERS if folder.exists()]
    rules += [(file, READ_FILE) for file in READABLE_FILES if file.exists()]
    rules += [(file, USE_DEVICE) for file in DEVICE_FILES if file.exists()]
    rules += [(DEVICES, READ_DIR), (OWN_PROCESS, READ | WRITE_FILE | TRUNCATE)]
    if SHARED_MEMORY.exists() and not sealed:
        rules.append((SHARED_MEMORY, WRITE))
    drop_capabilities()
    restrict(rules)
    if not seccomp_trouble():
        beside_gpu = any(kind == DEVICE for kind, _ in named)
        apply_filter(build_filter(rules_under_landlock(sealed=sealed, beside_gpu=beside_gpu)))
    for kind, path in named:
        if kind == START:
            os.chdir(path)  # only now: what lies there is the submission's
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
