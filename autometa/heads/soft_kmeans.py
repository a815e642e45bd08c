"""Soft k-means: prototypes refined by queries, weighted by their class probabilities."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.joint import Joint


def soft_kmeans(
    batch: FeatureBatch, *, sharpness: float, rounds: int = 10, renormalise: bool = False
) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length.

    The prototype c of a class is the mean of its support images and of all queries, weighted by their probability of
    that class; it is refined in `rounds` (Ren et al. 2018; the transductive inference of MCT, Kye et al. 2020). With
    0 rounds it is the class mean. With `renormalise` prototypes have unit length wherever distances to them are
    taken, as in the code of MetaDelta (Chen et al. 2021).
    """
    joint = Joint.of(batch)

    def logits(prototypes: torch.Tensor) -> torch.Tensor:
        ends = joint.normalise(prototypes) if renormalise else prototypes
        return -sharpness * joint.distances(ends)

    prototypes = joint.class_means
    for _ in range(rounds):
        prototypes = joint.means_with(joint.softmax(logits(prototypes)))
    return joint.query_scores(batch, logits(prototypes))


def to_nearest_mean(batch: FeatureBatch, *, sharpness: float, renormalise: bool = False) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: -sharpness·|f-c|² with the class mean c."""
    return soft_kmeans(batch, sharpness=sharpness, rounds=0, renormalise=renormalise)
