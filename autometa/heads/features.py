"""Batches of support and query features, and the transforms that come before a head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

TRANSFORMS = ("none", "l2", "cl2n", "root_l2")
"""none; unit length; centred on the meta-train mean, then unit length (SimpleShot's CL2N, Wang et al.
2019); signed square root, then unit length (the power transform of Hu et al. 2021 with exponent 0.5)."""

MASKED = float("-inf")


@dataclass(frozen=True)
class FeatureStatistics:
    """What the meta-train features say: `mean` float32 [d]."""

    mean: torch.Tensor


@dataclass(frozen=True)
class FeatureBatch:
    """Features of b episodes, padded: support float32 [b, s, d], support labels int64 [b, s] in
    0..ways-1 (-1: padding), query float32 [b, q, d], ways int64 [b]."""

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    ways: torch.Tensor

    @property
    def one_hot(self) -> torch.Tensor:
        """Support labels as float32 [b, s, n]; rows of padding are zero."""
        n = int(self.ways.max())
        classes = torch.arange(n, device=self.support_labels.device)
        return (self.support_labels[..., None] == classes).to(self.support.dtype)

    @property
    def real(self) -> torch.Tensor:
        """Which support rows are images, bool [b, s]."""
        return self.support_labels >= 0

    def mask_absent(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [b, q, n] with -inf for classes that an episode does not have."""
        absent = torch.arange(scores.shape[-1], device=scores.device) >= self.ways[:, None]
        return scores.masked_fill(absent[:, None, :], MASKED)


def transform(batch: FeatureBatch, name: str, statistics: FeatureStatistics | None) -> FeatureBatch:
    """The batch with transformed features; padding becomes zero. ValueError for an unknown name, or `cl2n`
    without statistics."""
    if name not in TRANSFORMS:
        raise ValueError(f"unknown feature transform `{name}`; one of {', '.join(TRANSFORMS)}")
    if name == "cl2n" and statistics is None:
        raise ValueError("the transform `cl2n` needs the statistics of meta-train features")

    def apply(features: torch.Tensor) -> torch.Tensor:
        if name == "cl2n" and statistics is not None:
            features = features - statistics.mean.to(features)
        if name == "root_l2":
            features = features.abs().sqrt() * features.sign()
        return features if name == "none" else F.normalize(features, dim=-1)

    support = apply(batch.support) * batch.real[..., None]
    return replace(batch, support=support, query=apply(batch.query))
