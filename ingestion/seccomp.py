"""A filter of system calls for the process of a submission and all that it starts (Linux, x86-64 and ARM64):

    python seccomp.py bwrap ARGUMENTS...

starts bubblewrap with it; `ingestion.landlocked` applies it by itself. The kernel runs the filter, a short program,
before each system call (https://docs.kernel.org/userspace-api/seccomp_filter.html). It refuses what no learner needs
and what past holes of the kernel were reached through: other processes, namespaces and mounts, keys, segments of
System V, io_uring, BPF, and calls in the form of another processor. No library is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER_MODE = 38, 22, 2
"""Of `prctl`."""

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions: load a word of the call, jump by comparing it, and the verdict."""
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Where the call has its number, its processor and its arguments (8 bytes each, the lower half first)."""
X32 = 0x40000000
"""Numbers from here on are calls in a third form of x86-64."""

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel names the processors that PyTorch runs on."""

NAMESPACES = 0x7E020000
"""Flags for a new namespace of any kind but time, whose flag is a signal for `clone`."""
TIME_NAMESPACE = 0x80
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
DATAGRAMS = 2
SOCKET_KIND = 0xF
PUSH_INPUT, LINUX_CONSOLE = 0x5412, 0x541C
"""Requests of terminals: type in place of the user, paste."""
SET_FLAGS = (0x40086602, 0x401C5820, 0x40087602)
"""Requests that change attributes of files, which may be open for reading only."""
OWN_PROCESS = 0


@dataclass(frozen=True)
class Rule:
    """A refusal of the call of this name with `error`. With `argument`: only where that is none of `but`, or has one
    of `bits`, or is one of `where`."""

    call: str
    error: int = errno.EPERM
    argument: int | None = None
    but: tuple[int, ...] = ()
    bits: int = 0
    where: tuple[int, ...] = ()


# fmt: off
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "kcmp": (312, 272), "prlimit64": (302, 261), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "iopl": (172, None), "ioperm": (173, None),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "unshare": (272, 97), "setns": (308, 268),
    "clone": (56, 220), "clone3": (435, 435), "ioctl": (16, 29), "socket": (41, 198), "socketpair": (53, 199),
    "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}
"""Numbers of calls on x86-64 and ARM64; None: it has no such call."""

ALWAYS = (
    *map(Rule, (
        "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "process_madvise", "kcmp", "userfaultfd",
        "bpf", "perf_event_open", "add_key", "request_key", "keyctl", "kexec_load", "kexec_file_load", "init_module",
        "finit_module", "delete_module", "reboot", "swapon", "swapoff", "acct", "syslog", "quotactl", "quotactl_fd",
        "iopl", "ioperm", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig",
        "fsmount", "fspick", "mount_setattr", "open_tree_attr", "open_by_handle_at", "fanotify_init", "setns",
    )),
    *(Rule(call, errno.ENOSYS) for call in (
        "io_uring_setup", "io_uring_enter", "io_uring_register", "shmget", "msgget", "semget", "mq_open",
    )),
    Rule("clone3", errno.ENOSYS),  # its flags cannot be seen: libraries go back to `clone`
    Rule("clone", argument=0, bits=NAMESPACES),
    Rule("unshare", argument=0, bits=NAMESPACES | TIME_NAMESPACE),
    Rule("ioctl", argument=1, where=(PUSH_INPUT, LINUX_CONSOLE)),
    Rule("prlimit64", argument=0, but=(OWN_PROCESS,)),
    Rule("setpriority", argument=0, but=(0,)),
    Rule("setpriority", argument=1, but=(OWN_PROCESS,)),
    Rule("ioprio_set", argument=0, but=(1,)),
    Rule("ioprio_set", argument=1, but=(OWN_PROCESS,)),
)
"""What every submission is refused."""

OWN_NETWORK = (Rule("socket", errno.EAFNOSUPPORT, argument=0, but=(UNIX, INET, INET6, NETLINK)),)
"""Where the sandbox has a network of its own, which leads nowhere: kinds of sockets that go past it."""
NO_NETWORK = (Rule("socket", errno.EAFNOSUPPORT, argument=0, but=(UNIX,)),)
"""Elsewhere: all sockets but those of programs of this machine."""
NO_SOCKETS = (Rule("socket", errno.EAFNOSUPPORT),)
UNCONNECTED = (
    Rule("socket", errno.EAFNOSUPPORT, argument=1, bits=DATAGRAMS),
    Rule("accept"),
    Rule("accept4"),
)
"""Instead, beside a GPU, whose driver opens a socket for other processes and waits for them: nothing is sent or
received without a connection, and none is made."""
SEALED = (
    Rule("socketpair", errno.EAFNOSUPPORT, argument=1, bits=DATAGRAMS),
    Rule("connect"),
    Rule("ioctl", argument=1, where=SET_FLAGS),
    *map(Rule, (
        "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes",
        "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr",
        "fremovexattr", "setxattrat", "removexattrat", "file_setattr",
    )),
)
"""Where files and sockets of the whole machine have their usual names: sockets with a path, permissions, times and
attributes of files, which lead out of the sandbox, or into that of the next task."""
# fmt: on


def rules_under_landlock(*, sealed: bool, beside_gpu: bool = False) -> tuple[Rule, ...]:
    """What a submission is refused whose files Landlock confines; `beside_gpu`: it may use one."""
    sockets = UNCONNECTED if beside_gpu else NO_SOCKETS
    return (*ALWAYS, *NO_NETWORK, *((*sockets, *SEALED) if sealed else ()))


def seccomp_trouble(machine: str = platform.machine()) -> str:
    """Why there is no filter here, or ""."""
    if sys.platform != "linux":
        return f"seccomp is a part of Linux, this is {sys.platform}"
    if machine not in AUDIT or struct.calcsize("P") != 8:
        return f"no filter is known for the processor {machine}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_SECCOMP, FILTER_MODE, None, 0, 0)
    if (error := ctypes.get_errno()) != errno.EFAULT:  # a kernel that has it misses the program
        return f"the kernel has no seccomp ({os.strerror(error)})"
    return ""


def build_filter(rules: tuple[Rule, ...], machine: str = platform.machine()) -> bytes:
    """The program that refuses what one of the rules says, as the kernel reads it."""
    place = list(AUDIT).index(machine)
    lines = [
        _line(LOAD, ARCHITECTURE),
        _line(JUMP_EQUAL, AUDIT[machine], yes=1),
        _refuse(errno.EPERM),
        _line(LOAD, NUMBER),
    ]
    if machine == "x86_64":
        lines += [_line(JUMP_AT_LEAST, X32, no=1), _refuse(errno.ENOSYS)]
    for rule in rules:
        number = NUMBERS[rule.call][place]
        if number is not None:
            body = list(_verdict(rule))
            lines += [_line(JUMP_EQUAL, number, no=len(body)), *body]
    return b"".join([*lines, _line(RETURN, ALLOW)])


def _verdict(rule: Rule) -> Iterator[bytes]:
    """The lines for a call of the rule's name. They end with the number of the call where it is not refused."""
    if rule.argument is None:
        yield _refuse(rule.error)
        return
    yield _line(LOAD, ARGUMENTS + 8 * rule.argument)
    if rule.bits:
        yield _line(JUMP_BITS, rule.bits, no=1)
    values = rule.where or rule.but
    for place, value in enumerate(values):
        past = len(values) - place - 1 + (1 if rule.but else 0)
        yield _line(JUMP_EQUAL, value, yes=past, no=1 if rule.where and place == len(values) - 1 else 0)
    yield _refuse(rule.error)
    yield _line(LOAD, NUMBER)


def _refuse(error: int) -> bytes:
    return _line(RETURN, REFUSE | error)


def _line(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))


def apply_filter(program: bytes) -> None:
    """Let the kernel filter the calls of this process and of all that it starts, for good. OSError if it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    described = _Program(len(program) // 8, program)
    for words in (
        (NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (SET_SECCOMP, FILTER_MODE, ctypes.byref(described), 0, 0),
    ):
        if libc.prctl(*words):
            error = ctypes.get_errno()
            raise OSError(error, f"seccomp, prctl {words[0]}: {os.strerror(error)}")


def main(command: list[str]) -> None:
    """Become bubblewrap with the filter."""
    fd = os.memfd_create("filter", 0)
    os.write(fd, build_filter((*ALWAYS, *OWN_NETWORK)))
    os.lseek(fd, 0, os.SEEK_SET)
    os.execvp(command[0], [command[0], "--seccomp", str(fd), *command[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
