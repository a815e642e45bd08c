"""LaplacianShot: similar queries get similar scores."""

from __future__ import annotations

from dataclasses import replace

import torch

from autometa.heads.features import FeatureBatch, unit

ROUNDS = 20
RECTIFYING = 10.0
"""Of the cosines by which images count in rectified prototypes."""


def laplacian_shot(
    batch: FeatureBatch,
    *,
    sharpness: float,
    agreement: float,
    neighbours: int = 3,
    rectified: bool = False,
) -> torch.Tensor:
    """Scores [b, q, n]: the logits z at the fixed point of p = softmax(z), z = -sharpness·|f-c|² + agreement·Wp.

    Ziko et al. 2020. Features have unit length, c is the class mean, and W is the symmetric graph that connects each
    query with its nearest `neighbours` among the queries. If `rectified`, queries are shifted by the difference of
    the means of support and query, and c is the mean of the support images of a class and of the queries that are
    nearest to its class mean, weighted by their softmax of `RECTIFYING`·cosine with the class means.
    """
    batch = batch.unit()
    graph = _connect_neighbours(batch, neighbours)
    if rectified:
        batch = _shift_queries(batch)
    means = _rectified_means(batch) if rectified else batch.class_means
    logits = unary = _to_means(batch, means, sharpness)
    for _ in range(ROUNDS):
        logits = unary + agreement * (graph @ logits.softmax(-1))
    return logits


def without_neighbours(
    batch: FeatureBatch, *, sharpness: float, agreement: float, neighbours: int = 3, rectified: bool = False
) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: -sharpness·|f-c|². The other parameters have no effect."""
    batch = batch.unit()
    return _to_means(batch, batch.class_means, sharpness)


def _to_means(batch: FeatureBatch, means: torch.Tensor, sharpness: float) -> torch.Tensor:
    """-sharpness·|f-c|² [b, q, n]; -inf for absent classes."""
    own = batch.query.square().sum(-1, keepdim=True)
    square = means.square().sum(-1)[:, None, :]
    return batch.mask_absent(sharpness * (2 * batch.query @ means.transpose(1, 2) - square - own))


def _shift_queries(batch: FeatureBatch) -> FeatureBatch:
    """The batch with queries moved so that their mean is that of the support; padding stays zero."""
    real = batch.support_mask.sum(1)[:, None, None].clamp(min=1)
    asked = batch.query_mask[..., None].to(batch.query.dtype)
    shift = batch.support.sum(1, keepdim=True) / real - batch.query.sum(1, keepdim=True) / asked.sum(
        1, keepdim=True
    ).clamp(min=1)
    return replace(batch, query=(batch.query + shift) * asked)


def _rectified_means(batch: FeatureBatch) -> torch.Tensor:
    """Weighted means [b, n, d] of the support images of each class and of the queries nearest to its class mean."""
    means = unit(batch.class_means).transpose(1, 2)
    images = torch.cat([batch.support, batch.query], dim=1)
    cosines = unit(images) @ means
    own = cosines[:, batch.support.shape[1] :]
    guess = batch.mask_absent(own).argmax(-1, keepdim=True)
    asked = torch.zeros_like(own).scatter_(-1, guess, 1.0) * batch.query_mask[..., None]
    members = torch.cat([batch.one_hot, asked], dim=1)
    weights = members * batch.mask_absent(RECTIFYING * cosines).softmax(-1)
    total = weights.sum(1).clamp(min=1e-12)[..., None]
    return weights.transpose(1, 2) @ images / total


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
