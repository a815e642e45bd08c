"""Batches of made-up episodes for the tests of heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autometa.heads import FeatureBatch, Prior

DIMENSIONS = 24


def prior(d: int = DIMENSIONS) -> Prior:
    """A prior that differs from dimension to dimension."""
    steps = torch.linspace(0.5, 1.5, d)
    return Prior(torch.zeros(d), steps, steps.flip(0) * 2)


def episode(
    ways: int,
    shots: int,
    queries: Sequence[int] | int,
    *,
    seed: int = 0,
    d: int = DIMENSIONS,
    spread: float = 0.7,
) -> tuple[FeatureBatch, torch.Tensor]:
    """One episode with so many queries of each class, and the labels of these."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.as_tensor([queries] * ways if isinstance(queries, int) else list(queries))
    means = torch.randn(ways, d, generator=generator)
    labels, asked = torch.arange(ways).repeat_interleave(shots), torch.arange(ways).repeat_interleave(counts)

    def images(of: torch.Tensor) -> torch.Tensor:
        return (means[of] + spread * torch.randn(len(of), d, generator=generator))[None]

    return FeatureBatch(images(labels), labels[None], images(asked), torch.tensor([ways])), asked


def padded(batches: Sequence[FeatureBatch], known: Prior | None = None) -> FeatureBatch:
    """One batch out of several single episodes; padding holds values that must not matter."""
    s, q = max(b.support.shape[1] for b in batches), max(b.query.shape[1] for b in batches)

    def pad(features: torch.Tensor, size: int, value: float) -> torch.Tensor:
        missing = size - features.shape[1]
        widths = (0, 0, 0, missing) if features.ndim == 3 else (0, missing)
        return torch.nn.functional.pad(features, widths, value=value)

    return FeatureBatch(
        torch.cat([pad(b.support, s, 7.0) for b in batches]),
        torch.cat([pad(b.support_labels, s, -1) for b in batches]),
        torch.cat([pad(b.query, q, -3.0) for b in batches]),
        torch.cat([b.ways for b in batches]),
        torch.cat([pad(b.query_mask.float(), q, 0.0) for b in batches]).bool(),
        known,
    )
