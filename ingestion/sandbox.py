"""The sandboxes, each a command that starts the submission's process.

There are two: bubblewrap (its own file system, network and process table) and Landlock (a feature of the Linux
kernel that needs no privileges: files outside the lists cannot be opened). Both come with a filter of system calls,
where the kernel has that; it also switches the network off under Landlock. Without a sandbox, the child still gets no
path of the data, no label and a clean environment, but it can search the disk.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from ingestion import seccomp
from ingestion.access import PACKAGE_ROOT, SYSTEM_FOLDERS, Access
from ingestion.confinement import (
    TRUNCATE_VERSION,
    landlock_abi,
    landlock_lacks,
    landlock_trouble,
    strict_trouble,
)
from ingestion.errors import InputError
from ingestion.gpu import gpu_devices
from ingestion.landlocked import DEVICE, START
from ingestion.seccomp import seccomp_trouble

SandboxChoice = Literal["auto", "strict", "none", "bubblewrap", "landlock"]
Sandbox = Literal["none", "bubblewrap", "landlock"]

IMAGES = Path("/images")
"""Where files of images are mounted under bubblewrap."""
FILTERED = [sys.executable, "-I", "-S", str(Path(seccomp.__file__).resolve())]
"""Before the command of bubblewrap: starts it with the filter of system calls. Like the next one it reads nothing but
Python itself: it has the variables of the submission, whose home is the submission's own folder."""
LANDLOCKED = [
    sys.executable, "-I", "-S", "-c",
    f"import sys; sys.path.append({str(PACKAGE_ROOT)!r}); "
    "from ingestion.landlocked import main; main(sys.argv[1:])",
]  # fmt: skip
"""Starts a command under Landlock."""


def choose_sandbox(choice: SandboxChoice) -> tuple[Sandbox, str]:
    """The sandbox to use, and a line that says why. InputError if the requested one does not work."""
    if choice == "none":
        return "none", "sandbox: none, as asked; the submission can read what you can read"
    if choice == "strict":
        return _strictest()
    if choice in ("auto", "bubblewrap"):
        trouble = _bubblewrap_trouble()
        if not trouble:
            unfiltered = f"; {lack}" if (lack := seccomp_trouble()) else ""
            return "bubblewrap", f"sandbox: bubblewrap (no network, own file system{unfiltered})"
        if choice == "bubblewrap":
            raise InputError(f"--sandbox bubblewrap: {trouble}; install it or use --sandbox auto")
    trouble = landlock_trouble()
    if not trouble:
        network = "own files only" if seccomp_trouble() else "own files only, no network"
        return "landlock", f"sandbox: Landlock ({network}{landlock_lacks()})"
    if choice == "landlock":
        raise InputError(f"--sandbox landlock: {trouble}; use --sandbox auto")
    return "none", f"sandbox: none ({trouble}, no bubblewrap); run only submissions that you trust"


def _strictest() -> tuple[Sandbox, str]:
    found, lacks = strict_trouble(_bubblewrap_trouble())
    if found == "bubblewrap":
        return "bubblewrap", "sandbox: bubblewrap, strict (no network, own file system, own processes)"
    if found == "landlock":
        return "landlock", "sandbox: Landlock, strict (own files only, no sockets, no signals)"
    raise InputError(
        f"--sandbox strict: {lacks}; install bubblewrap (apt install bubblewrap) on a Linux that allows user "
        "namespaces, or use Linux 6.12 or newer with Landlock"
    )


@functools.cache
def _bubblewrap_trouble() -> str:
    if shutil.which("bwrap") is None:
        return "the program `bwrap` is not installed"
    probe = [*_bubblewrap_base(), "true"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`bwrap` does not start ({error})"
    return "" if done.returncode == 0 else f"`bwrap` does not work here ({done.stderr.strip()})"


def may_share_files(sandbox: str) -> bool:
    """Whether the submission can do no harm to a file of which it has a descriptor for reading."""
    return sandbox != "landlock" or landlock_abi() >= TRUNCATE_VERSION


def mount_point(file: Path) -> Path:
    """Where the submission finds a file of images under bubblewrap."""
    return IMAGES / file.name


def confine(sandbox: str, command: list[str], access: Access, mounted: tuple[Path, ...] = ()) -> list[str]:
    """`command`, with the command of the sandbox before it. `mounted`: files of images, for bubblewrap only."""
    if sandbox == "bubblewrap":
        return [*_bubblewrap(access, mounted), *command]
    if sandbox == "landlock":
        carved = [folder for folder in access.readable if access.masked(folder)]
        folders = [f"--list={p}" for p in (PACKAGE_ROOT, *carved)]
        folders += [f"--read={p}" for folder in access.readable for p in access.openings(folder)]
        folders += [f"--write={p}" for p in (access.scratch, *access.writable)]
        folders += [f"{DEVICE}={p}" for p in gpu_devices()]
        sealed = ["--sealed"] if access.sealed else []
        return [*LANDLOCKED, *folders, f"{START}={access.scratch}", *sealed, "--", *command]
    return command


def start_folder(sandbox: str, access: Access) -> Path:
    """Where the first process of a command starts. What starts it in a sandbox is not confined yet, so that no file
    of the submission may be near it."""
    return access.scratch if sandbox == "none" else Path("/")


def _bubblewrap(access: Access, mounted: tuple[Path, ...]) -> list[str]:
    """Outer folders come first, so that what is hidden within a readable one, and what is readable within that, are
    mounted over it."""
    mounts = {folder: ["--ro-bind", str(folder), str(folder)] for folder in access.readable}
    masks = [mask for folder in access.readable for mask in access.masked(folder)]
    for mask in masks:
        mounts[mask] = ["--tmpfs", str(mask)] if mask.is_dir() else ["--ro-bind", "/dev/null", str(mask)]
    arguments = [word for path in sorted(mounts, key=lambda path: len(path.parts)) for word in mounts[path]]
    for folder in (access.scratch, *access.writable):
        arguments += ["--bind", str(folder), str(folder)]
    for file in dict.fromkeys(mounted):
        arguments += ["--ro-bind", str(file), str(mount_point(file))]
    for mask in (*(mask for mask in masks if mask.is_dir()), Path("/dev"), Path("/")):
        arguments += ["--remount-ro", str(mask)]  # nothing can be kept there unseen
    return [*_bubblewrap_base(), *arguments, "--chdir", str(access.scratch)]


def _bubblewrap_base() -> list[str]:
    base = [] if seccomp_trouble() else list(FILTERED)
    base += ["bwrap", "--die-with-parent", "--unshare-all", "--cap-drop", "ALL", "--proc", "/proc"]
    base += ["--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp"]
    for folder in SYSTEM_FOLDERS:
        if Path(folder).is_symlink():
            base += ["--symlink", str(Path(folder).readlink()), folder]
        elif Path(folder).exists():
            base += ["--ro-bind", folder, folder]
    for device in gpu_devices():
        base += ["--dev-bind", str(device), str(device)]
    return [*base, "--ro-bind-try", "/sys", "/sys"]
