"""Soft k-means: prototypes refined by queries, weighted by their class probabilities."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.joint import Joint


def soft_kmeans(batch: FeatureBatch, *, sharpness: float, rounds: int = 10) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length.

    The prototype c of a class is the mean of its support images and of all queries, weighted by their probability of
    that class; it is refined in `rounds` (Ren et al. 2018; the transductive inference of MCT, Kye et al. 2020). With
    0 rounds it is the class mean.
    """
    joint = Joint.of(batch)
    prototypes = joint.class_means
    for _ in range(rounds):
        prototypes = joint.means_with(joint.softmax(-sharpness * joint.distances(prototypes)))
    return joint.query_scores(batch, -sharpness * joint.distances(prototypes))


def to_nearest_mean(batch: FeatureBatch, *, sharpness: float) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: -sharpness·|f-c|² with the class mean c."""
    return soft_kmeans(batch, sharpness=sharpness, rounds=0)
