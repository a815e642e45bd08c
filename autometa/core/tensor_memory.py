"""How much memory work on tensors takes at its peak: as the allocator of a GPU tells, or counted on any device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autometa.core.budget import own_bytes
from autometa.core.repeated import repeated

LOOK_S = 0.005


class TensorCounter(TorchDispatchMode):
    """Within it, the bytes of all tensors that this thread makes are counted while they live: `peak_bytes`, and
    `now_bytes`. Work within `vmap`, gradients of gradients and backward passes count; what kernels take for
    themselves does not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_bytes = self.peak_bytes = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and _address(leaf) not in given:  # else a view, or in place
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._alive:
            self._alive[address] = storage.nbytes()
            self.now_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.now_bytes)
            weakref.finalize(storage, self._remove, address).atexit = False

    def _remove(self, address: int) -> None:
        self.now_bytes -= self._alive.pop(address, 0)


def measure_peak(work: Callable[[], object], device: str) -> int:
    """Bytes of tensors at the peak of work, beyond what was there before: by the allocator of an NVIDIA GPU, counted
    elsewhere."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return max(int(torch.cuda.max_memory_allocated() - before), 0)
    with TensorCounter() as counter:
        work()
    return int(counter.peak_bytes)


def measure_growth(work: Callable[[], object], device: str) -> int:
    """Bytes by which memory grew at the peak of work: that of an NVIDIA GPU, by its allocator; elsewhere that of this
    process, with all its threads and what kernels take for themselves, looked at every few milliseconds."""
    if device == "cuda":
        return measure_peak(work, device)
    before = own_bytes()
    seen = [before]
    with repeated(lambda: seen.append(own_bytes()), LOOK_S):
        work()
    return max(*seen, own_bytes()) - before


def _address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
