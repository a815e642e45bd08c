"""What the submission's process may touch: read-only programs, its own bundle, and a few folders of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestion.cgroups import count_cores, cpu_quota
from ingestion.errors import InputError

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt")
ADD_ON_FOLDER = Path("/opt")
"""The only system folder in which people keep their own work."""
PASSED_VARIABLES = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
    "CUDA_MODULE_LOADING", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "OMP_WAIT_POLICY", "PYTHONHASHSEED", "HF_HUB_OFFLINE", "AUTOMETA_BACKBONES", "AUTOMETA_CACHES",
    "AUTOMETA_INFER_LIMIT", "AUTOMETA_ADAPT_LIMIT", "AUTOMETA_MAX_MODEL_SIZE",
)  # fmt: skip
SEARCH_PATHS = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Access:
    """Folders that the child may read, and those that it may also write; `scratch` is its home. It must not see the
    `hidden` files and folders (resolved paths), even within readable ones. What is readable within a hidden folder is
    seen. `sealed`: it also has no sockets, no folder `/dev/shm` and cannot change permissions, times and attributes
    of files, which is needed under Landlock alone: there, all of these are shared with the machine."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    scratch: Path
    hidden: tuple[Path, ...] = ()
    sealed: bool = False

    def masked(self, folder: Path) -> tuple[Path, ...]:
        """Hidden paths within this readable folder, under the name by which it is readable."""
        inside = folder.resolve()
        return tuple(
            folder / h.relative_to(inside) for h in self.hidden if h.exists() and h.is_relative_to(inside)
        )

    def openings(self, folder: Path) -> Iterator[Path]:
        """What is left of a readable folder without the hidden paths: itself, or files and folders within it. Links
        are left out, since they may lead elsewhere."""
        inside = folder.resolve()
        hidden = [h for h in self.hidden if h.is_relative_to(inside)]
        if not hidden:
            yield folder
        elif inside not in hidden:
            for entry in sorted(inside.iterdir()):
                if not entry.is_symlink():
                    yield from self.openings(entry)


def accessible(
    readable: tuple[Path, ...],
    writable: tuple[Path, ...],
    scratch: Path,
    *,
    private: Iterable[Path],
    output: Path,
) -> Access:
    """The access of a submission to which `private` files and folders stay closed, and so do the `output` of its run
    and everything beside it that a readable folder holds: outputs of other runs have the same truth.

    InputError if one of them can not be closed.
    """
    hidden = [path.resolve() for path in private]
    if PACKAGE_ROOT not in {folder.resolve() for folder in readable}:
        hidden.append(
            PACKAGE_ROOT
        )  # with its data and outputs, but for the packages, which are readable by themselves
    hidden.append(_beside_others(output.resolve(), readable))
    for folder in readable:
        if folder.resolve() in hidden:
            raise InputError(
                f"{folder}: the submission needs to read this folder, but it is also the dataset, the image cache or "
                "holds the output; name another folder, or use --sandbox none for a submission that you trust"
            )
    return Access(readable, writable, scratch, tuple(dict.fromkeys(hidden)))


def _beside_others(output: Path, readable: tuple[Path, ...]) -> Path:
    """The output, or where it lies within a readable folder, the entry of that folder that it lies in."""
    around = [folder.resolve() for folder in readable if output.is_relative_to(folder.resolve())]
    if not around:
        return output
    innermost = max(around, key=lambda folder: len(folder.parts))
    if str(innermost) in SYSTEM_FOLDERS and innermost != ADD_ON_FOLDER:
        raise InputError(
            f"output folder {output}: lies in the system folder {innermost}, which every submission can read; "
            "name another one with --output"
        )
    return innermost / output.relative_to(innermost).parts[0] if output != innermost else output


def hugging_face_home() -> Path:
    """The folder of the Hugging Face libraries: downloaded files in `hub/`, and the user's token."""
    return _absolute(os.environ.get("HF_HOME") or _user_cache() / "huggingface")


def hugging_face_hub() -> Path:
    """The folder of downloaded files."""
    return _absolute(os.environ.get("HF_HUB_CACHE") or hugging_face_home() / "hub")


def torch_home() -> Path:
    """The folder of what PyTorch has downloaded."""
    return _absolute(os.environ.get("TORCH_HOME") or _user_cache() / "torch")


def weights_folders() -> list[Path]:
    """Folders with weights that the user names."""
    named = os.environ.get("AUTOMETA_WEIGHTS_DIR", "").split(os.pathsep)
    return [_absolute(folder) for folder in named if folder]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _absolute(path: str | Path) -> Path:
    """The child has another home and another working directory."""
    return Path(path).expanduser().absolute()


def secrets() -> tuple[Path, ...]:
    """Files with tokens of the user that may lie in a readable folder."""
    home = hugging_face_home()
    token = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    return token, home / "token", home / "stored_tokens", token.with_name("stored_tokens")


def child_environment(scratch: Path, extra: dict[str, str]) -> dict[str, str]:
    """Environment of the child: a few harmless variables, a home of its own, and the documented `extra`.

    OpenMP threads wait without spinning, which makes PyTorch several times faster if the machine has other load.
    Where a container has a quota, there are as many as it is worth: OpenMP counts the processors of the machine.
    """
    kept = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    kept |= {name: _absolute_only(kept[name]) for name in SEARCH_PATHS if name in kept}
    if cpu_quota() is not None:
        kept.setdefault("OMP_NUM_THREADS", str(count_cores()))
    python_path = os.pathsep.join([str(PACKAGE_ROOT), *_extra_python_path()])
    return kept | {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "HF_HOME": str(hugging_face_home()),
        "HF_HUB_CACHE": str(hugging_face_hub()),
        "HF_TOKEN_PATH": str(scratch / "no-token"),  # libraries fail on a token that they may not read
        "TORCH_HOME": str(torch_home()),
        "AUTOMETA_WEIGHTS_DIR": os.pathsep.join(map(str, weights_folders())),
        "PYTHONPATH": python_path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "0"),
        **extra,
    }


def _absolute_only(folders: str) -> str:
    """A search path without its empty and relative entries: they would lead into the folder of the submission."""
    return os.pathsep.join(folder for folder in folders.split(os.pathsep) if Path(folder).is_absolute())


def _extra_python_path() -> list[str]:
    found = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return [str(Path(p).absolute()) for p in found if Path(p).resolve() != PACKAGE_ROOT]


def readable_folders() -> tuple[Path, ...]:
    """Folders that any Python program needs here: those of the system, of Python and of installed packages, the
    packages beside this one (not their parent folder, which may hold data), and local caches of weights."""
    prefixes = [Path(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)]
    found = [Path(p) for p in sys.path if {"site-packages", "dist-packages"} & set(Path(p).parts)]
    beside = [init.parent for init in PACKAGE_ROOT.glob("*/__init__.py")]
    caches = [*hugging_face_hub().glob("models--*"), torch_home()]  # in the hub, datasets have labels
    extra = [Path(p) for p in _extra_python_path()]
    for folder in weights_folders():  # with what links in them lead to
        extra += [folder, *(f.resolve() for f in (*folder.glob("*"), *folder.glob("*/*")) if f.is_symlink())]
    wanted = [*map(Path, SYSTEM_FOLDERS), *prefixes, *found, *beside, *extra, *caches]
    return tuple(dict.fromkeys(p for p in wanted if p.exists()))
