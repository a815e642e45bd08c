"""Nearest class centroid."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch, unit


def nearest_centroid(batch: FeatureBatch, *, metric: str = "euclidean") -> torch.Tensor:
    """Scores [b, q, n]: negative squared Euclidean distance to the class mean (Snell et al. 2017), without the part
    that is the same for all classes, or the cosine with the class mean. ValueError for another `metric`."""
    means = batch.class_means
    if metric == "cosine":
        scores = unit(batch.query) @ unit(means).transpose(1, 2)
    elif metric == "euclidean":
        # |q|² is left out: it is the same for every class
        scores = 2 * batch.query @ means.transpose(1, 2) - means.square().sum(-1)[:, None, :]
    else:
        raise ValueError(f"unknown metric `{metric}`; choose euclidean or cosine")
    return batch.mask_absent(scores)
