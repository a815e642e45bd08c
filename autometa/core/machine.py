"""The machine: its device for networks, with what that takes to start, its cores and its memory."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autometa.core.budget import container_bytes, stopwatch
from autometa.core.cgroups import count_cores

if TYPE_CHECKING:
    import torch

CPU = "cpu"
COLD_DEVICES = {"cuda", "mps"}
"""Devices whose first calls take seconds: libraries are loaded, and kernels for each kind of work."""
AGREEMENT = 1e-3
"""Largest difference from the CPU at which a GPU of Apple is used, relative to the largest value."""
CONTEXT_BYTES = 500 * 2**20
"""Memory of a process on a GPU that no allocator of PyTorch counts, the context of CUDA and its libraries, where it
cannot be measured."""
LATER_BYTES = 128 * 2**20
"""Of kernels that are loaded after the context was measured."""
LEAST_BYTES = 100 * 2**20
"""Of a budget, for networks and images: ingestion refuses one that has less room beside `CONTEXT_BYTES`."""
LEAST_CONTEXT, MOST_CONTEXT = 64 * 2**20, 3 * CONTEXT_BYTES
"""Bounds of what is taken for a context: what lies outside is the work of other programs."""
LEAST_SHARE = 1e-4
COMPUTE_MODE, SHARED = 20, 0
"""The number of this attribute of a GPU, and its value where several processes may use it."""
_LOCK = threading.Lock()
_STARTED_S: dict[str, float] = {}
_CONTEXTS: dict[str, int] = {}
_SET_ASIDE: dict[int, int] = {}
"""Memory that objects keep for themselves on the GPU, by their identity."""
_BROKEN: dict[str, str] = {}
"""Devices that did not start in this process, and why."""


@dataclass(frozen=True)
class Machine:
    """The machine that a run computes on: `device` is `cpu`, `cuda` or `mps`."""

    device: str
    cores: int
    memory_bytes: int

    @classmethod
    def detect(cls) -> Machine:
        """This machine, with a GPU if torch finds one; cores and memory within the limits of the container, cores
        also as ingestion declares them, since a sandbox may hide the limits."""
        cores = count_cores()
        declared = int(os.environ.get("METADL_CORES", cores))
        return cls(_find_device(), min(cores, declared), container_bytes())

    def warm_up(self) -> float:
        """Start the device, once in a process; seconds that this took. 0 on the CPU."""
        return warm_up(self.device)


def starts_cold(device: str) -> bool:
    """Whether first calls on a device take so much longer than later ones that no rate may be taken from them."""
    return device in COLD_DEVICES


def time_settled(work: Callable[[], object], device: str, clock: Callable[[], float] | None = None) -> float:
    """Seconds that `work` takes on a device, on `now` where no clock is given. Where the device starts cold, it is
    done once before, untimed. It must end with a result on the CPU, so that a GPU has finished too."""
    if starts_cold(device):
        work()
    elapsed = stopwatch(clock)
    work()
    return elapsed()


def warm_up(device: str) -> float:
    """Start a device within its memory budget, once in a process, whichever thread asks first; seconds that this
    took. 0 on the CPU."""
    if not starts_cold(device):
        return 0.0
    with _LOCK:
        if device not in _STARTED_S and device not in _BROKEN:
            elapsed = stopwatch()
            try:
                _start_within_budget(device)
            except RuntimeError as error:  # too old a card for this PyTorch, or one that others use alone
                _BROKEN[device] = (str(error).splitlines() or [type(error).__name__])[0]
            else:
                _STARTED_S[device] = elapsed()
    return _STARTED_S.get(device, 0.0)


def reason_not_to_use(device: str) -> str | None:
    """Why a device did not start in this process, so that the CPU is used instead; None where it did."""
    return _BROKEN.get(device)


def context_bytes(device: str) -> int:
    """Memory of this process on a GPU that PyTorch's allocator does not count: measured when the device started, with
    room for what is loaded later; else `CONTEXT_BYTES`."""
    return _CONTEXTS.get(device, CONTEXT_BYTES)


def _start_within_budget(device: str) -> None:
    """Run the first kernels, and measure what the process takes for itself; the allocator gets the rest of the budget
    of GPU memory. The process that stands by for meta-test starts at about the same time, and what it takes cannot be
    told apart: with it, no more is believed than where nothing can be measured."""
    budget_bytes, before = os.environ.get("METADL_GPU_MEMORY_BYTES"), _bytes_in_use(device)
    limit_memory(device, budget_bytes)
    _run_first_kernels(device)
    after = _bytes_in_use(device)
    if before is None or after is None:
        return
    import torch  # noqa: PLC0415 - slow to import

    context = after - before - torch.cuda.memory_reserved()
    if not LEAST_CONTEXT <= context <= MOST_CONTEXT:
        return
    most = max(int(budget_bytes) - LEAST_BYTES, CONTEXT_BYTES) if budget_bytes else MOST_CONTEXT
    _CONTEXTS[device] = min(context + LATER_BYTES, CONTEXT_BYTES if _stands_by() else most)
    limit_memory(device, budget_bytes)


def _bytes_in_use(device: str) -> int | None:
    """Memory of a GPU that all programs use, as its driver tells; None where it does not tell."""
    import torch  # noqa: PLC0415 - slow to import

    tell = getattr(torch.cuda, "device_memory_used", None)  # older versions have none
    if device != "cuda" or tell is None or importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml  # noqa: PLC0415 - not everywhere that a bundle runs

    try:
        return int(tell(0))
    except (pynvml.NVMLError, RuntimeError, ImportError) as error:  # ImportError: the cards are not NVIDIA's
        logging.getLogger(__name__).info("the memory in use on the GPU is unknown: %s", error)
        return None


def limit_memory(device: str, budget_bytes: str | None) -> None:
    """Keep PyTorch's allocator on a GPU within a budget, less what processes take on the card beside it."""
    if device != "cuda" or not budget_bytes:
        return
    import torch  # noqa: PLC0415 - slow to import

    total = torch.cuda.mem_get_info()[1]
    share = (int(budget_bytes) - (2 if _stands_by() else 1) * context_bytes(device)) / total
    torch.cuda.set_per_process_memory_fraction(min(max(share, LEAST_SHARE), 1.0))


def _stands_by() -> bool:
    """Whether a second process of the submission stands by for meta-test."""
    return bool(json.loads(os.environ.get("METADL_TEST_SPEC", "{}")).get("standby", False))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread of PyTorch: for work so small that starting others, and their waiting for more, costs
    more than they do."""
    import torch  # noqa: PLC0415 - slow to import

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def warm_up_in_background() -> threading.Thread:
    """Start the device of this machine while other work goes on, unless only one process at a time may use it."""

    def start() -> None:
        machine = Machine.detect()
        if machine.device != "cuda" or _may_share_gpu():
            machine.warm_up()

    thread = threading.Thread(target=start, name="warm-up", daemon=True)
    thread.start()
    return thread


def set_aside(owner: object, n_bytes: int) -> None:
    """So much memory on the GPU is for the `owner` alone as long as it lives, as that of a CUDA graph is: it is not
    free, even where nothing is in it."""
    _SET_ASIDE[id(owner)] = n_bytes
    weakref.finalize(owner, _SET_ASIDE.pop, id(owner), None).atexit = False


def free_bytes(device: str) -> int | None:
    """Memory that is free on a device of its own; None where it uses that of the machine."""
    import torch  # noqa: PLC0415 - slow to import, and not needed to look at the machine

    if device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    held = torch.cuda.memory_allocated()
    cached = torch.cuda.memory_reserved() - held
    kept = min(sum(_SET_ASIDE.values()), cached)
    tell_share = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # older versions have none
    limit = (tell_share() if tell_share else 1.0) * total - held
    return int(min(free + cached, limit) - kept)


def _find_device() -> str:
    """`cuda`, or `mps` where it computes what the CPU does, else `cpu`."""
    import torch  # noqa: PLC0415 - slow to import

    if torch.cuda.is_available() and "cuda" not in _BROKEN:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = (
            False  # float32 is the reference
        )
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and _agrees_with_cpu("mps") else CPU


def _may_share_gpu() -> bool:
    """Whether several processes may use the GPU at a time, as far as its driver tells."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    device, mode = ctypes.c_int(0), ctypes.c_int(SHARED)
    failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    if not failed:
        driver.cuDeviceGetAttribute(ctypes.byref(mode), COMPUTE_MODE, device)
    return mode.value == SHARED


def _agrees_with_cpu(device: str) -> bool:
    """Whether a convolution on a device gives what it gives on the CPU."""
    expected = _convolve(CPU)
    error = (_convolve(device) - expected).abs().max() / expected.abs().max()
    return bool(error <= AGREEMENT)  # false for what is no number, too


def _run_first_kernels(device: str) -> None:
    """One call of each kind of work that networks are made of, in the precisions that are used."""
    import torch  # noqa: PLC0415 - slow to import

    for dtype in (torch.float32, torch.float16):
        _convolve(device, dtype)


def _convolve(device: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Pixels that are resized, convolved and multiplied, float32 [4, 8] on the CPU."""
    import torch  # noqa: PLC0415 - slow to import
    import torch.nn.functional as F  # noqa: PLC0415

    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(4, 3, 24, 24, generator=random).to(device)
    weight = torch.rand(8, 3, 3, 3, generator=random).to(device, dtype)
    larger = F.interpolate(pixels, (32, 32), mode="bilinear").to(weight.dtype)
    maps = F.conv2d(larger.contiguous(memory_format=torch.channels_last), weight).mean((2, 3))
    return (maps @ torch.eye(8, device=device, dtype=maps.dtype)).float().cpu()
