"""Features that are embedded and on their way to the cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones.feature_files import FeatureKind
from autometa.core.chunks import fits_memory
from autometa.data.images import hash_images

SHARD_ROWS = 1024
"""Embedded images after which a shard is written to the disk cache."""


class PendingFeatures:
    """Rows of `images` uint8 [n, 3, h, w] that are embedded and not written yet, all in one precision. `kind_of`
    gives the part of the cache for features in a precision; None: there is no cache."""

    def __init__(self, images: NDArray[np.uint8], kind_of: Callable[[str], FeatureKind] | None) -> None:
        self._images, self._kind_of = images, kind_of
        self._precision = ""
        self._rows: list[int] = []
        self._features: list[torch.Tensor] = []

    def keep(self, rows: Sequence[int], features: torch.Tensor, precision: str) -> None:
        """Features float32 [m, d] of these rows, by an engine of this precision. Another one fills another shard."""
        if self._kind_of is None:
            return
        if precision != self._precision:
            self.flush()
        self._precision = precision
        self._rows.extend(rows)
        self._features.append(features)
        if len(self._rows) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, once: where memory runs out, the disk goes without it."""
        rows, features = self._rows, self._features
        self._rows, self._features = [], []
        if self._kind_of is None or not rows:
            return
        kind = self._kind_of(self._precision)
        fits, _, _ = fits_memory(
            lambda: kind.add(hash_images(self._images[rows]), torch.cat(features).numpy())
        )
        if not fits:
            kind.tell_lost("not enough memory", "give the run more of it")
