"""Prototype rectification (BD-CSPN)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch, unit


def bd_cspn(batch: FeatureBatch, *, sharpness: float = 10.0, shift: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n]: cosine with rectified prototypes (Liu et al. 2020).

    Queries are shifted by `shift` times the difference between the means of support and query, and assigned to the
    nearest class mean. The prototype of a class is then the mean of all its images, weighted by exp(sharpness·cosine
    with the class mean).
    """
    batch = batch.unit()
    asked = batch.query_mask[..., None].to(batch.query.dtype)
    real = batch.support_mask.sum(1)[:, None, None]
    support_mean = batch.support.sum(1, keepdim=True) / real
    query_mean = batch.query.sum(1, keepdim=True) / asked.sum(1, keepdim=True).clamp(min=1)
    moved = unit(batch.query + shift * (support_mean - query_mean)) * asked
    means = unit(batch.class_means).transpose(1, 2)
    cosines = moved @ means
    guess = batch.mask_absent(cosines).argmax(-1, keepdim=True)
    members = torch.cat([batch.one_hot, torch.zeros_like(cosines).scatter_(-1, guess, 1.0) * asked], dim=1)
    images = torch.cat([batch.support, moved], dim=1)
    nearness = torch.cat([batch.support @ means, cosines], dim=1)
    weights = members * (sharpness * (nearness - 1)).exp()
    rectified = weights.transpose(1, 2) @ images
    return batch.mask_absent(moved @ unit(rectified).transpose(1, 2))


def class_cosines(batch: FeatureBatch, *, sharpness: float = 10.0, shift: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: cosine with the class mean. The parameters have no effect."""
    batch = batch.unit()
    return batch.mask_absent(batch.query @ unit(batch.class_means).transpose(1, 2))
