"""LaplacianShot: similar queries get similar scores."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch

ROUNDS = 20


def laplacian_shot(
    batch: FeatureBatch, *, sharpness: float, agreement: float, neighbours: int = 3
) -> torch.Tensor:
    """Scores [b, q, n]: the logits z at the fixed point of p = softmax(z), z = -sharpness·|f-c|² + agreement·Wp.

    Ziko et al. 2020. Features have unit length, c is the class mean, and W is the symmetric graph that connects each
    query with its nearest `neighbours` among the queries.
    """
    graph = _connect_neighbours(batch.unit(), neighbours)
    logits = unary = without_neighbours(batch, sharpness=sharpness, agreement=agreement)
    for _ in range(ROUNDS):
        logits = unary + agreement * (graph @ logits.softmax(-1))
    return logits


def without_neighbours(batch: FeatureBatch, *, sharpness: float, agreement: float) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: -sharpness·|f-c|². `agreement` has no effect."""
    batch = batch.unit()
    means = batch.class_means
    square = means.square().sum(-1)[:, None, :]
    return batch.mask_absent(sharpness * (2 * batch.query @ means.transpose(1, 2) - square - 1))


def _connect_neighbours(batch: FeatureBatch, neighbours: int) -> torch.Tensor:
    """Symmetric adjacency [b, q, q] of each query and its nearest neighbours; zero for padding."""
    real = batch.query_mask
    both = real[:, :, None] & real[:, None, :]
    similar = batch.query @ batch.query.transpose(1, 2)
    itself = torch.eye(similar.shape[1], dtype=torch.bool, device=similar.device)
    similar = similar.masked_fill(~both | itself, float("-inf"))
    found = similar.topk(min(neighbours, similar.shape[1] - 1), dim=-1)
    graph = torch.zeros_like(similar).scatter_(2, found.indices, found.values.isfinite().to(similar.dtype))
    return (graph + graph.transpose(1, 2)) / 2
