"""Prototype rectification (BD-CSPN)."""

from __future__ import annotations

from dataclasses import replace

import torch

from autometa.heads.features import FeatureBatch, unit
from autometa.heads.joint import Joint


def bd_cspn(batch: FeatureBatch, *, sharpness: float = 10.0, shift: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n]: cosine with rectified prototypes (Liu et al. 2020).

    Queries are moved by `shift` times the difference of the means of support and query; each is then given
    to its nearest class mean, and the prototype becomes the average of all members of a class, weighted by
    exp(sharpness·cosine with the class mean).
    """
    batch = batch.unit()
    asked = batch.asked[..., None].to(batch.query.dtype)
    real = batch.real.sum(1)[:, None, None]
    support_mean = batch.support.sum(1, keepdim=True) / real
    query_mean = batch.query.sum(1, keepdim=True) / asked.sum(1, keepdim=True).clamp(min=1)
    moved = unit(batch.query + shift * (support_mean - query_mean)) * asked
    batch = replace(batch, query=moved)
    joint = Joint.of(batch)
    cosines = _cosines(joint, joint.class_means)
    s = batch.support.shape[1]
    guess = cosines.masked_fill(~joint.present[..., None], float("-inf")).argmax(1, keepdim=True)
    members = torch.zeros_like(cosines).scatter_(1, guess, 1.0) * joint.asked[:, None, :]
    members[..., :s] = joint.labels[..., :s]
    weights = members * (sharpness * (cosines - 1)).exp()
    rectified = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    return joint.query_scores(batch, _cosines(joint, rectified))


def class_cosines(batch: FeatureBatch, *, sharpness: float = 10.0, shift: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n] of the same rule without the queries' help: cosine with the class mean; the
    parameters play no part."""
    batch = batch.unit()
    return batch.mask_absent(batch.query @ unit(batch.class_means).transpose(1, 2))


def _cosines(joint: Joint, prototypes: torch.Tensor) -> torch.Tensor:
    """Cosines [b, n, m] of images of unit length with prototypes given by coefficients."""
    products = prototypes @ joint.gram
    length = (products * prototypes).sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
    return products / length
