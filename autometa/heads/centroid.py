"""Nearest class centroid."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autometa.heads.features import FeatureBatch


def class_means(batch: FeatureBatch) -> torch.Tensor:
    """Mean support feature of each class, [b, n, d]; zero for classes that an episode does not have."""
    one_hot = batch.one_hot
    counts = one_hot.sum(dim=1).clamp(min=1)
    return one_hot.transpose(1, 2) @ batch.support / counts[..., None]


def nearest_centroid(batch: FeatureBatch, *, metric: str = "euclidean") -> torch.Tensor:
    """Scores [b, q, n]: negative squared Euclidean distance to the class mean (Snell et al. 2017), or the
    cosine with it. ValueError for another metric."""
    means = class_means(batch)
    if metric == "cosine":
        scores = F.normalize(batch.query, dim=-1) @ F.normalize(means, dim=-1).transpose(1, 2)
    elif metric == "euclidean":
        # |q|² is the same for every class and is left out
        scores = 2 * batch.query @ means.transpose(1, 2) - means.square().sum(-1)[:, None, :]
    else:
        raise ValueError(f"unknown metric `{metric}`; euclidean or cosine")
    return batch.mask_absent(scores)
