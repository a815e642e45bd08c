"""LaplacianShot: nearby queries should agree."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch

ROUNDS = 20


def laplacian_shot(
    batch: FeatureBatch, *, sharpness: float, agreement: float, neighbours: int = 3
) -> torch.Tensor:
    """Scores [b, q, n]: logits z of the fixed point p = softmax(z), z = -sharpness·|f-c|² + agreement·Wp
    (Ziko et al. 2020), on features of unit length, c the class mean, W the symmetric graph that joins each
    query with its nearest `neighbours` among the queries."""
    graph = _graph(batch.unit(), neighbours)
    logits = unary = without_neighbours(batch, sharpness=sharpness, agreement=agreement)
    for _ in range(ROUNDS):
        logits = unary + agreement * (graph @ logits.softmax(-1))
    return logits


def without_neighbours(batch: FeatureBatch, *, sharpness: float, agreement: float) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length; `agreement` plays no part."""
    batch = batch.unit()
    means = batch.class_means
    square = means.square().sum(-1)[:, None, :]
    return batch.mask_absent(sharpness * (2 * batch.query @ means.transpose(1, 2) - square - 1))


def _graph(batch: FeatureBatch, neighbours: int) -> torch.Tensor:
    """Adjacency [b, q, q] of the nearest neighbours among the queries, symmetric, without padding."""
    asked = batch.query_mask
    both = asked[:, :, None] & asked[:, None, :]
    similar = batch.query @ batch.query.transpose(1, 2)
    itself = torch.eye(similar.shape[1], dtype=torch.bool, device=similar.device)
    similar = similar.masked_fill(~both | itself, float("-inf"))
    found = similar.topk(min(neighbours, similar.shape[1] - 1), dim=-1)
    graph = torch.zeros_like(similar).scatter_(2, found.indices, found.values.isfinite().to(similar.dtype))
    return (graph + graph.transpose(1, 2)) / 2
