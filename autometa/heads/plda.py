"""Probabilistic linear discriminant analysis: the two-covariance model (Brümmer & de Villiers 2010)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch, guess_prior


def plda(batch: FeatureBatch, *, between_shrinkage: float) -> torch.Tensor:
    """Scores [b, q, n]: log-density of a query given the support images of a class.

    A class mean is drawn from N(μ, S_b), an image from N(class mean, S_w). Both covariances are diagonal, as they are
    after a whitening metric. The posterior of a class mean from k images has precision 1/S_b + k/S_w. S_b is shrunk
    towards its mean over dimensions by `between_shrinkage`, since means of new classes vary in all directions.
    """
    prior = batch.prior or guess_prior(batch)
    average = prior.between.mean(-1, keepdim=True)
    between = (1 - between_shrinkage) * prior.between + between_shrinkage * average
    spread = prior.within / batch.shots.clamp(min=1)[..., None]
    trust = between / (between + spread).clamp(min=1e-30)
    means = trust * (batch.class_means - prior.mean)
    precision = 1 / (trust * spread + prior.within).clamp(min=1e-30)
    query = batch.query - prior.mean
    square = query.square() @ precision.transpose(1, 2)
    cross = query @ (means * precision).transpose(1, 2)
    rest = (means.square() * precision - precision.log()).sum(-1)
    return batch.mask_absent(cross - (square + rest[:, None, :]) / 2)
