"""What a network takes for one image, counted without computing anything: arithmetic, traffic, memory, operations."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from autometa.backbones import BackboneSpec, Preprocessing
from autometa.backbones.architecture import create_model
from autometa.backbones.network import PixelNetwork

MIB = 2**20


class Counter(TorchDispatchMode):
    """Counts, on the device `meta`, multiply-adds (`dense`, and `grouped` for convolutions in groups), bytes that
    operations write (`traffic`), the most bytes that live at a time beside the weights (`peak`), and operations."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = self.grouped = self.traffic = self.live = self.peak = self.ops = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {t.untyped_storage()._cdata for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            macs = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
            groups = args[8] if packet == torch.ops.aten.convolution and len(args) > 8 else 1
            if groups > 1:
                self.grouped += macs
            else:
                self.dense += macs
        new = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        fresh = [t for t in new if t.untyped_storage()._cdata not in known | self._storages]
        for tensor in fresh:
            self._watch(tensor)
        written = fresh or (new if str(packet).endswith("_") else [])  # what works in place writes, too
        self.traffic += sum(t.numel() * t.element_size() for t in written)
        self.ops += bool(written)
        return out

    def _watch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        self._storages.add(place)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self._storages.discard(place)
        self.live -= size


def count(spec: BackboneSpec, px: int) -> dict[str, float]:
    """All figures for one image of this size."""
    with torch.device("meta"):
        network = PixelNetwork(
            model := create_model(spec).eval().requires_grad_(False), Preprocessing.of(model)
        )
        counter = Counter()
        images = torch.zeros(1, 3, px, px, dtype=torch.uint8)
        with torch.no_grad(), counter:
            network.blocks(images)
    return {
        "dense": counter.dense / 1e6,
        "grouped": counter.grouped / 1e6,
        "traffic": counter.traffic / MIB,
        "peak": counter.peak / MIB,
        "ops": counter.ops,
    }
