"""A budget of GPU memory: told to the submission, set for PyTorch's allocator, and watched from outside.

What is watched is the memory of the whole card, by NVML, less what was in use before the run: in a container the
process ids that NVML gives are those of the host. So other work that begins on the card meanwhile counts too.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
FREE_SHARE = 0.9
"""Of the free memory of the card: the budget where none is given."""
CONTEXT_BYTES = 500 * 2**20
"""Memory of a process on the card that no allocator of PyTorch counts: the context of CUDA and its libraries."""
LEAST_SHARE = 0.01
KNOWS_FRACTION = (2, 11)
"""The version of PyTorch from which on a variable sets the share of its allocator; older ones refuse to start."""
ALLOCATOR_VARIABLE = "PYTORCH_ALLOC_CONF"


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Card:
    """Memory of all GPUs that NVML sees, together."""

    def __init__(self, library: Any) -> None:
        self._library = library
        count = ctypes.c_uint(0)
        self._check(library.nvmlInit_v2())
        self._check(library.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        self._handles = []
        for number in range(count.value):
            handle = ctypes.c_void_p()
            self._check(library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)))
            self._handles.append(handle)

    @classmethod
    def find(cls, load: Callable[[str], Any] = ctypes.CDLL) -> Card | None:
        """The cards of this machine; None where NVML is not there or finds none."""
        try:
            card = cls(load(LIBRARY))
        except OSError:
            return None
        return card if card._handles else None

    def memory(self) -> tuple[int, int]:
        """Bytes in all, and bytes in use."""
        total = used = 0
        for handle in self._handles:
            memory = _Memory()
            self._check(self._library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)))
            total, used = total + memory.total, used + memory.used
        return total, used

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise OSError(status, f"NVML gave error {status}")


@dataclass
class GpuMeter:
    """Watches a budget in bytes on cards of which `before` bytes were in use."""

    card: Card
    limit_bytes: int
    before: int

    @classmethod
    def of(cls, card: Card | None, budget_bytes: int | None) -> GpuMeter | None:
        """A meter for this budget, or for most of what is free; None without a card."""
        if card is None:
            return None
        total, used = card.memory()
        return cls(card, budget_bytes or int(FREE_SHARE * (total - used)), used)

    def excess(self) -> str:
        """Why the submission must end, or ""."""
        try:
            used = self.card.memory()[1] - self.before
        except OSError:
            return ""  # the driver is busy or gone; the next look tells
        if used <= self.limit_bytes:
            return ""
        return f"used {used / 1e9:.2f} GB of GPU memory, the budget is {self.limit_bytes / 1e9:.2f} GB"

    def variables(self) -> dict[str, str]:
        """The environment variable that keeps PyTorch's allocator within the budget, where PyTorch knows it."""
        if _torch_version() < KNOWS_FRACTION:
            return {}
        share = max((self.limit_bytes - CONTEXT_BYTES) / self.card.memory()[0], LEAST_SHARE)
        return {ALLOCATOR_VARIABLE: f"per_process_memory_fraction:{min(share, 1.0):.4f}"}


def _torch_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in importlib.metadata.version("torch").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return (0,)
