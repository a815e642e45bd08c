"""Multinomial logistic regression for many episodes at once."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.solve import cholesky

ITERATIONS = 200
CHECK_EVERY = 10
TOLERANCE = 2e-4
"""Optimisation ends when the largest gradient of an image, in units of probability, is below this."""
INTERCEPT = 100.0
"""The intercept is the weight of an additional feature. This makes the feature so large that the penalty of its
weight has no effect."""


def logistic_regression(batch: FeatureBatch, *, strength: float) -> torch.Tensor:
    """Scores [b, q, n] of the weights W that minimise mean cross-entropy + strength/2·|W|²; the intercept is free.

    With W = FᵀA and A [b, s, n], only the s × s Gram matrix K is needed. The Hessian is at most K(K/(2s) + strength)
    (Böhning 1992); the inverse of this bound turns a gradient into a step. Nesterov's momentum restarts when it
    points uphill (O'Donoghue & Candès 2015).
    """
    real, one_hot = batch.support_mask[..., None], batch.one_hot
    count = real.sum(dim=1, keepdim=True).to(one_hot.dtype)
    centre = batch.support.sum(1, keepdim=True) / count
    support = (batch.support - centre) * real
    scale = support.square().sum((1, 2), keepdim=True) / count  # at most 1 for features of unit length
    pairs = real * real.transpose(1, 2) * (scale * INTERCEPT + 1e-12)
    gram = support @ support.transpose(1, 2) + pairs
    weights = _minimise(batch, gram, count, strength)
    cross = (batch.query - centre) @ support.transpose(1, 2) + pairs[:, :1]
    return batch.mask_absent(cross @ weights)


def _minimise(batch: FeatureBatch, gram: torch.Tensor, count: torch.Tensor, strength: float) -> torch.Tensor:
    """The optimal dual weights A [b, s, n]."""
    real, one_hot = batch.support_mask[..., None], batch.one_hot
    bound = gram / (2 * count)
    bound.diagonal(dim1=1, dim2=2).add_(strength)
    inverse = torch.cholesky_inverse(cholesky(bound)).to(gram.dtype)
    absent = torch.where(batch.present, 0.0, float("-inf"))[:, None, :].to(gram.dtype)
    weights = look = torch.zeros_like(one_hot)
    age = torch.ones_like(count)
    for iteration in range(ITERATIONS):
        error = (gram @ look + absent).softmax(-1) * real - one_hot
        gradient = error / count + strength * look
        if iteration % CHECK_EVERY == CHECK_EVERY - 1 and float((gradient * count).abs().max()) < TOLERANCE:
            break
        new = look - inverse @ gradient
        change = new - weights
        uphill = (gradient * (gram @ change)).sum((1, 2), keepdim=True) > 0
        age = torch.where(uphill, torch.ones_like(age), age + 1)
        look = new + change * (age - 1) / (age + 2)
        weights = new
    return weights
