"""Soft k-means: prototypes refined by confidence-weighted queries."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.joint import Joint


def soft_kmeans(batch: FeatureBatch, *, sharpness: float, rounds: int = 10) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length, where c is the mean of the support
    images of a class and of all queries by their probability of belonging to it (Ren et al. 2018; the
    transductive inference of MCT, Kye et al. 2020), found in `rounds`. Without rounds: nearest centroid."""
    joint = Joint.of(batch)
    prototypes = joint.class_means
    for _ in range(rounds):
        prototypes = joint.means_with(joint.softmax(-sharpness * joint.distances(prototypes)))
    return joint.query_scores(batch, -sharpness * joint.distances(prototypes))


def to_nearest_mean(batch: FeatureBatch, *, sharpness: float) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length, c the class mean."""
    return soft_kmeans(batch, sharpness=sharpness, rounds=0)
