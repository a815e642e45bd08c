"""Run a command that can only open files in the named folders and only signal its own processes:

    python -m ingestion.landlocked --list=DIR --read=DIR --write=DIR -- COMMAND

(`--list` gives the names in the folder and below, not the files. `--read` also takes a file.) The kernel keeps the
restriction after exec and for all children.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from landlock import FSAccess, Ruleset, landlock_abi_version

from ingestion.sandbox import SCOPES_ABI

READABLE_FOLDERS = ("/proc/self", "/proc/sys", "/sys")
READABLE_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems")
"""The parts of `/proc` about the machine and this process, not about other processes."""
DEVICES = "/dev"
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2


def main(arguments: list[str]) -> None:
    """Restrict this process, then become the command behind `--`."""
    split = arguments.index("--")
    folders, command = arguments[:split], arguments[split + 1 :]
    read_file = FSAccess.READ_FILE | FSAccess.EXECUTE
    read = read_file | FSAccess.READ_DIR
    granted = {"--list": FSAccess.READ_DIR, "--read": read, "--write": FSAccess.all()}
    rules = Ruleset()
    for option in folders:
        kind, _, path = option.partition("=")
        rules.allow(path, rules=granted[kind] if Path(path).is_dir() else read_file)
    rules.allow(*filter(os.path.exists, READABLE_FOLDERS), rules=read)
    rules.allow(*filter(os.path.exists, READABLE_FILES), rules=FSAccess.READ_FILE)
    rules.allow(DEVICES, rules=FSAccess.all())
    rules.apply()
    if landlock_abi_version() >= SCOPES_ABI:
        _stay_in_scope()
    os.execv(command[0], command)


def _stay_in_scope() -> None:
    """Let this process and its children neither signal nor connect to processes outside; the package has no call for
    it. OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint64 * 3)(0, 0, _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    fd = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    if fd < 0 or libc.syscall(_RESTRICT_SELF, fd, 0) != 0:
        raise OSError(ctypes.get_errno(), "Landlock cannot keep signals within the sandbox")
    os.close(fd)


if __name__ == "__main__":
    main(sys.argv[1:])
