"""What the submission's process may touch: read-only programs, its own bundle, and a few folders of its own.

There are two sandboxes; each is a command that starts the child: bubblewrap (no network, its own file system and
process table) and Landlock (a feature of the Linux kernel that needs no privileges: files outside the lists cannot be
opened). Without a sandbox, the child still gets no path of the data, no label and a clean environment, but it can
search the disk.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingestion.errors import InputError
from ingestion.landlocked import landlock_version

SandboxChoice = Literal["auto", "none", "bubblewrap", "landlock"]

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt")
PASSED_VARIABLES = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONHASHSEED", "HF_HUB_OFFLINE",
)  # fmt: skip


@dataclass(frozen=True)
class Access:
    """Folders that the child may read, and those that it may also write; `scratch` is its home. It must not see
    `hidden` ones, even within readable ones."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    scratch: Path
    hidden: tuple[Path, ...] = ()

    @property
    def exposed(self) -> tuple[Path, ...]:
        """Hidden folders that lie within readable ones."""
        return tuple(h for h in self.hidden if h.exists() and any(h.is_relative_to(r) for r in self.readable))


def choose_sandbox(choice: SandboxChoice) -> tuple[Literal["none", "bubblewrap", "landlock"], str]:
    """The sandbox to use, and a line that says why. InputError if the requested one does not work."""
    if choice == "none":
        return "none", "sandbox: none, as asked; the submission can read what you can read"
    if choice in ("auto", "bubblewrap"):
        trouble = _bubblewrap_trouble()
        if not trouble:
            return "bubblewrap", "sandbox: bubblewrap (no network, own file system)"
        if choice == "bubblewrap":
            raise InputError(f"--sandbox bubblewrap: {trouble}; install it or use --sandbox auto")
    trouble = _landlock_trouble()
    if not trouble:
        return "landlock", "sandbox: Landlock (own files only; the network stays open: no bubblewrap here)"
    if choice == "landlock":
        raise InputError(f"--sandbox landlock: {trouble}; use --sandbox auto")
    return "none", f"sandbox: none ({trouble}, no bubblewrap); run only submissions that you trust"


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


@functools.cache
def _landlock_trouble() -> str:
    try:
        landlock_version()
    except OSError as error:
        return f"no Landlock here ({error.strerror}), it needs Linux 5.13 or newer with Landlock switched on"
    return ""


def child_environment(scratch: Path, extra: dict[str, str]) -> dict[str, str]:
    """Environment of the child: a few harmless variables, a home of its own, and the documented `extra`.

    OpenMP threads wait without spinning, which makes PyTorch several times faster if the machine has other load.
    """
    kept = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    torch_home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    python_path = os.pathsep.join([str(PACKAGE_ROOT), *_extra_python_path()])
    return kept | {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "HF_HOME": str(hub),
        "TORCH_HOME": str(torch_home),
        "PYTHONPATH": python_path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "0"),
        **extra,
    }


def _extra_python_path() -> list[str]:
    found = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return [p for p in found if Path(p).resolve() != PACKAGE_ROOT]


def readable_folders(environment: dict[str, str]) -> tuple[Path, ...]:
    """Folders that any Python program needs here: those of the system, of Python and of installed packages, the
    packages beside this one (not their parent folder, which may hold data), and local caches of weights."""
    prefixes = [Path(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)]
    found = [Path(p) for p in sys.path if {"site-packages", "dist-packages"} & set(Path(p).parts)]
    beside = [init.parent for init in PACKAGE_ROOT.glob("*/__init__.py")]
    caches = [Path(environment["HF_HOME"]), Path(environment["TORCH_HOME"])]
    extra = [Path(p) for p in _extra_python_path()]
    wanted = [*map(Path, SYSTEM_FOLDERS), *prefixes, *found, *beside, *extra, *caches]
    return tuple(dict.fromkeys(p for p in wanted if p.exists()))


def confine(sandbox: str, command: list[str], access: Access) -> list[str]:
    """`command`, with the command of the sandbox before it."""
    if sandbox == "bubblewrap":
        binds: list[str] = []
        for folder in access.readable:
            binds += ["--ro-bind", str(folder), str(folder)]
        for folder in access.exposed:
            binds += ["--tmpfs", str(folder)]
        for folder in (access.scratch, *access.writable):
            binds += ["--bind", str(folder), str(folder)]
        return [*_bubblewrap_base(), *binds, "--chdir", str(access.scratch), *command]
    if sandbox == "landlock":
        folders = [f"--list={PACKAGE_ROOT}", *(f"--read={p}" for p in access.readable)]
        folders += [f"--write={p}" for p in (access.scratch, *access.writable)]
        return [sys.executable, "-m", "ingestion.landlocked", *folders, "--", *command]
    return command


def _bubblewrap_base() -> list[str]:
    base = ["bwrap", "--die-with-parent", "--unshare-all", "--cap-drop", "ALL", "--proc", "/proc"]
    base += ["--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in SYSTEM_FOLDERS:
        if Path(folder).is_symlink():
            base += ["--symlink", str(Path(folder).readlink()), folder]
        elif Path(folder).exists():
            base += ["--ro-bind", folder, folder]
    for device in sorted(Path("/dev").glob("nvidia*")):
        base += ["--dev-bind", str(device), str(device)]
    return [*base, "--ro-bind-try", "/sys", "/sys"]
