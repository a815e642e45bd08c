"""Embed once: features of images, kept per view, computed in chunks that fit the memory."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import Backbone, View
from autometa.budget import MemoryBudget, TimeBudget, stopwatch
from autometa.errors import BudgetExhausted

BYTES_PER_PIXEL = 400
"""Working memory of a forward pass per input pixel: a generous figure for the catalogue's networks."""
LARGEST_CHUNK = 64
ALLOCATOR_TEXT = ("can't allocate memory", "not enough memory", "out of memory")

T = TypeVar("T")


def image_keys(images: NDArray[np.uint8]) -> list[bytes]:
    """A digest per image, so that equal images are embedded once."""
    return [hashlib.blake2b(i.tobytes(), digest_size=16).digest() for i in images]


def in_chunks(work: Callable[[int, int], T], n: int, chunk: int) -> list[T]:
    """`work(start, stop)` over 0..n in steps of `chunk`; a step that runs out of memory is done again in
    halves, those before it stay done. BudgetExhausted where even a single item does not fit."""
    results: list[T] = []
    start = 0
    while start < n:
        try:
            results.append(work(start, min(start + chunk, n)))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if chunk == 1:
                raise BudgetExhausted(f"not enough memory for a single item ({error})") from error
            fits = False
        else:
            fits = True
        if fits:
            start += chunk
        else:  # outside the handler, so that the traceback's frames no longer hold tensors
            chunk //= 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return results


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error).lower() for text in ALLOCATOR_TEXT)


class FeatureStore:
    """Features by view and image key, float32 on the CPU. Each image is embedded once per view.

    `backbone_of` gives the network of a name; what an image costs is measured as it goes.
    """

    def __init__(self, backbone_of: Callable[[str], Backbone], memory: MemoryBudget) -> None:
        self._backbone_of = backbone_of
        self._memory = memory
        self._rows: dict[View, dict[Hashable, torch.Tensor]] = {}
        self._spent: dict[View, tuple[float, int]] = {}

    def embed(
        self,
        view: View,
        images: NDArray[np.uint8],
        keys: Sequence[Hashable],
        budget: TimeBudget | None = None,
    ) -> torch.Tensor:
        """Features float32 [n, d] of uint8 images [n, 3, h, w] whose identities are `keys` [n].

        BudgetExhausted where `budget` ends first; what was embedded by then is kept.
        """
        known = self._rows.setdefault(view, {})
        missing = list(dict.fromkeys(i for i, key in enumerate(keys) if key not in known))
        missing = list({keys[i]: i for i in missing}.values())
        backbone = self._backbone_of(view.backbone) if missing else None

        def work(start: int, stop: int) -> None:
            assert backbone is not None
            if budget is not None:
                budget.check(f"embedding with {view}")
            rows = missing[start:stop]
            elapsed = stopwatch()
            features = backbone.embed(images[rows], view.px)
            self._record(view, elapsed(), len(rows))
            for row, feature in zip(rows, features, strict=True):
                known[keys[row]] = feature

        in_chunks(work, len(missing), self._chunk(view))
        return torch.stack([known[key] for key in keys])

    def missing(self, view: View, keys: Sequence[Hashable]) -> int:
        """How many distinct images are still to be embedded."""
        known = self._rows.get(view, {})
        return len({key for key in keys if key not in known})

    def seconds_per_image(self, view: View) -> float | None:
        """Measured cost of one image; None before the first measurement."""
        seconds, images = self._spent.get(view, (0.0, 0))
        return seconds / images if images else None

    def _record(self, view: View, seconds: float, images: int) -> None:
        """Recent chunks count more, since other load on the machine comes and goes."""
        old_seconds, old_images = self._spent.get(view, (0.0, 0))
        keep = 0.5 if old_images > 4 * LARGEST_CHUNK else 1.0
        self._spent[view] = (old_seconds * keep + seconds, int(old_images * keep) + images)

    def _chunk(self, view: View) -> int:
        room = self._memory.left_bytes() // 3
        return int(np.clip(room // (BYTES_PER_PIXEL * view.px**2), 1, LARGEST_CHUNK))
