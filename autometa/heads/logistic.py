"""Multinomial logistic regression for many episodes at once."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch

ITERATIONS = 300
"""Fixed, so that an answer does not depend on the episodes that share its batch."""


def logistic_regression(batch: FeatureBatch, *, strength: float) -> torch.Tensor:
    """Scores [b, q, n] of min mean cross-entropy + strength/2·|W|², without bias.

    The weights are W = FᵀA, so everything happens in the s × s Gram matrix K: Nesterov's method for a
    strongly convex function (Nesterov 2004, §2.2.1) on A in the metric of K, whose gradient is
    (softmax(KA) - Y)/s + strength·A and whose smoothness is at most λmax(K)/(2s) + strength.
    """
    gram = batch.support @ batch.support.transpose(1, 2)
    one_hot = batch.one_hot
    count = batch.real.sum(dim=1)[:, None, None].to(gram.dtype)
    # the largest eigenvalue is at most the largest absolute row sum
    smoothness = gram.abs().sum(-1).amax(-1)[:, None, None] / (2 * count) + strength
    root = (strength / smoothness).sqrt()
    momentum = (1 - root) / (1 + root)
    weights = look = torch.zeros_like(one_hot)
    for _ in range(ITERATIONS):
        scores = batch.mask_absent(gram @ look)
        gradient = (scores.softmax(-1) * batch.real[..., None] - one_hot) / count + strength * look
        step = look - gradient / smoothness
        look = step + momentum * (step - weights)
        weights = step
    return batch.mask_absent(batch.query @ batch.support.transpose(1, 2) @ weights)
