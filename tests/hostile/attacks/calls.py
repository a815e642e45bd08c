"""System calls, for the attacks: each raises OSError where the kernel refuses it."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {"add_key": 248, "keyctl": 250, "userfaultfd": 323, "kcmp": 312, "bpf": 321},
    "aarch64": {"add_key": 217, "keyctl": 219, "userfaultfd": 282, "kcmp": 272, "bpf": 280},
}
SAME_EVERYWHERE = {"pidfd_getfd": 438, "io_uring_setup": 425, "io_uring_enter": 426}


def call(name: str, *arguments: Any) -> int:
    """The function of the C library, or the system call of this name."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    numbers = SAME_EVERYWHERE | NUMBERS.get(platform.machine(), {})
    if name in numbers:
        LIBC.syscall.restype = ctypes.c_long
        result = LIBC.syscall(ctypes.c_long(numbers[name]), *given)
    else:
        function = getattr(LIBC, name)
        function.restype = ctypes.c_long
        result = function(*given)
    if ctypes.c_int(result & 0xFFFFFFFF).value == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


class Vector(ctypes.Structure):
    """A `struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))
