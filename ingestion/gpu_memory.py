"""A budget of GPU memory: told to the submission, set for PyTorch's allocator, and watched from outside.

What is watched is the memory of each whole card, by NVML, less what was in use before the run: in a container the
process ids that NVML gives are those of the host. So other work that begins on a card meanwhile counts too. A budget
is that of a card; networks are on the first one that `CUDA_VISIBLE_DEVICES` shows.
"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from typing import Any

import pynvml

from ingestion.errors import InputError
from ingestion.folders import counted

FREE_SHARE = 0.9
"""Of the free memory of the card: the budget where none is given."""
CONTEXT_BYTES = 500 * 2**20
"""Memory of a process on the card that no allocator of PyTorch counts: the context of CUDA and its libraries. Enough
for those seen; a submission that is ours measures its own when it starts."""
LEAST_ALLOCATOR_BYTES = 100 * 2**20
"""For networks and images; below this a budget is refused."""
LEAST_SHARE = 1e-4
KNOWS_FRACTION = (2, 11)
"""The version of PyTorch from which on a variable sets the share of its allocator; older ones refuse to start."""
ALLOCATOR_VARIABLE, ORDER_VARIABLE = "PYTORCH_ALLOC_CONF", "CUDA_DEVICE_ORDER"


class Card:
    """The GPUs that programs may use here, by NVML; `CUDA_VISIBLE_DEVICES` is honoured."""

    def __init__(self, nvml: Any, visible: str | None = None) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        every = [str(number) for number in range(nvml.nvmlDeviceGetCount())]
        named = every if visible is None else [name.strip() for name in visible.split(",") if name.strip()]
        self._handles = [self._handle(name) for name in named if not name.startswith("-")]

    def _handle(self, name: str) -> Any:
        """Of a card by its number, or by its UUID."""
        nvml = self._nvml
        return (
            nvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdigit()
            else nvml.nvmlDeviceGetHandleByUUID(name)
        )

    @classmethod
    def find(cls, nvml: Any = pynvml) -> Card | None:
        """The cards of this machine; None where NVML is not there or finds none."""
        try:
            card = cls(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
        except nvml.NVMLError:
            return None
        return card if card._handles else None

    def memory(self) -> list[tuple[int, int]]:
        """Bytes of each card, and bytes in use on it. OSError where NVML cannot tell."""
        try:
            found = [self._nvml.nvmlDeviceGetMemoryInfo(handle) for handle in self._handles]
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error
        return [(int(memory.total), int(memory.used)) for memory in found]


@dataclass
class GpuMeter:
    """Watches a budget in bytes on cards, of each of which so many bytes were in use `before`. `processes`: how many
    of the submission use them at a time. `given`: somebody asked for this budget. `peak_bytes`: the most that was
    added on a card, as far as it was seen."""

    card: Card
    limit_bytes: int
    before: tuple[int, ...]
    processes: int = 1
    given: bool = True
    peak_bytes: int = 0

    @classmethod
    def of(cls, card: Card | None, budget_bytes: int | None, processes: int = 1) -> GpuMeter | None:
        """A meter for this budget, or for most of what is free on the first card; None without a card that tells its
        memory. InputError where a given budget leaves nothing to compute with."""
        if card is None:
            return None
        try:
            cards = card.memory()
        except OSError:
            return None
        total, used = cards[0]
        limit = budget_bytes or int(FREE_SHARE * max(total - used, 0))
        meter = cls(card, limit, tuple(used for _, used in cards), processes, bool(budget_bytes))
        if budget_bytes and meter.allocator_bytes < LEAST_ALLOCATOR_BYTES:
            least = processes * CONTEXT_BYTES + LEAST_ALLOCATOR_BYTES
            raise InputError(
                f"--gpu-memory-budget {budget_bytes / 1e9:.2f}GB: {counted(processes, 'process', 'processes')} need "
                f"{processes * CONTEXT_BYTES / 1e9:.2f} GB of it to start; give {least / 1e9:.2f}GB or more"
            )
        return meter

    @property
    def allocator_bytes(self) -> int:
        """What is left of the budget for an allocator, without the contexts of all processes."""
        return self.limit_bytes - self.processes * CONTEXT_BYTES

    def excess(self) -> str:
        """Why the submission must end, or "". Only for a budget that was given: whole cards are looked at, and where
        nobody set a limit, other programs that begin to use them are to cost no run."""
        try:
            cards = self.card.memory()
        except OSError:
            return ""  # the driver is busy or gone; the next look tells
        used = max(now - before for (_, now), before in zip(cards, self.before, strict=True))
        self.peak_bytes = max(self.peak_bytes, used)
        if not self.given or used <= self.limit_bytes:
            return ""
        return f"used {used / 1e9:.2f} GB of GPU memory, the budget is {self.limit_bytes / 1e9:.2f} GB"

    def variables(self) -> dict[str, str]:
        """Environment variables: cards are numbered as NVML does, and, where PyTorch knows how, its allocator is kept
        within the budget."""
        order = {} if ORDER_VARIABLE in os.environ else {ORDER_VARIABLE: "PCI_BUS_ID"}
        if _torch_version() < KNOWS_FRACTION:
            return order
        try:
            share = self.allocator_bytes / self.card.memory()[0][0]
        except OSError:
            return order
        fraction = f"per_process_memory_fraction:{min(max(share, LEAST_SHARE), 1.0):.6f}"
        return order | {ALLOCATOR_VARIABLE: fraction}


def _torch_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in importlib.metadata.version("torch").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return (0,)
