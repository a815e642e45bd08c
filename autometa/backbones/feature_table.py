"""Features of images in memory, by key."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch


class FeatureTable:
    """Rows float32 [d] by key, in one matrix that grows."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self._place: dict[Hashable, int] = {}
        self._matrix = torch.empty(0, 0, dtype=dtype)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._place

    def __len__(self) -> int:
        return len(self._place)

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self._matrix.nbytes

    def reserve(self, more: int, width: int) -> None:
        """Room for so many rows more, at once: growing copies everything."""
        rows = len(self._place) + more
        if rows > len(self._matrix):
            larger = torch.empty(max(rows, len(self._place) * 5 // 4), width, dtype=self._matrix.dtype)
            if self._place:
                larger[: len(self._place)] = self._matrix[: len(self._place)]
            self._matrix = larger

    def add(self, keys: Sequence[Hashable], rows: torch.Tensor) -> None:
        """Rows [n, d] of keys [n]. A key that is in the table keeps its row."""
        new = {key: i for i, key in enumerate(keys) if key not in self._place}
        if len(new) < len(keys):
            rows = rows[list(new.values())]
        self.reserve(len(new), rows.shape[1])
        first = len(self._place)
        self._matrix[first : first + len(new)] = rows
        self._place.update({key: first + i for i, key in enumerate(new)})

    def take(self, keys: Sequence[Hashable]) -> torch.Tensor:
        """A copy of the rows [n, d] of these keys."""
        return self._matrix[[self._place[key] for key in keys]]
