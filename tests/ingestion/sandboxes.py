"""Which sandboxes this machine has, asked without the program under test."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import pytest

LANDLOCK_CREATE_RULESET = 444
"""Number of the system call; with `VERSION` as its flags, it tells the version of Landlock in the kernel."""
VERSION = 1


def has_bubblewrap() -> bool:
    """Whether `bwrap` is installed and may make namespaces here, which some containers forbid."""
    if shutil.which("bwrap") is None:
        return False
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def has_landlock() -> bool:
    """Whether the kernel has Landlock; the package that asks for it is a dependency on Linux."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, VERSION) >= 1


def skip_without(sandbox: str) -> None:
    """Skip the test where the machine does not have this sandbox. Where it has, the test must run."""
    if not {"bubblewrap": has_bubblewrap, "landlock": has_landlock}[sandbox]():
        pytest.skip(f"this machine has no {sandbox}")
