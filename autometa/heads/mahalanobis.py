"""Mahalanobis distance with a covariance per class, shrunk towards that of the whole support (Simple CNAPS)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.solve import cholesky, in_support_span


def mahalanobis(batch: FeatureBatch, *, ridge: float, own: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n]: -½(f-c)ᵀ[a·S_n + (1-a)·S_all + b·I]⁻¹(f-c) with a = own·k/(k+1) (Bateni et al. 2020).

    b is `ridge` times the total variance of the support, so that the scale of features has no effect. `own` = 0 gives
    linear discriminants with the covariance of all support images.
    """
    batch = in_support_span(batch)
    support, query, one_hot = batch.support, batch.query, batch.one_hot
    real = batch.support_mask[..., None].to(support.dtype)
    count = real.sum(1, keepdim=True)
    centred = (support - support.sum(1, keepdim=True) / count) * real
    overall = centred.transpose(1, 2) @ centred / (count - 1)
    residual = support - one_hot @ batch.class_means
    members = residual[:, None] * one_hot.transpose(1, 2)[..., None]
    classwise = members.transpose(2, 3) @ residual[:, None] / (batch.shots - 1).clamp(min=1)[..., None, None]
    share = (own * batch.shots / (batch.shots + 1))[..., None, None]
    covariance = share * classwise + (1 - share) * overall[:, None]
    variance = overall.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    # identical support images have no variance: add a little, in proportion to the query, to keep it invertible
    floor = 1e-6 * query.square().sum((1, 2))[:, None, None] / query.shape[1] + 1e-20
    covariance.diagonal(dim1=2, dim2=3).add_(ridge * variance + floor)
    factor = cholesky(covariance).to(support.dtype)
    difference = query[:, None] - batch.class_means[:, :, None]
    whitened = torch.linalg.solve_triangular(factor, difference.transpose(2, 3), upper=False)
    return batch.mask_absent(-whitened.square().sum(2).transpose(1, 2) / 2)
