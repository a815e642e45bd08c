"""Quadratic discriminant analysis with a normal-inverse-Wishart prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from autometa.heads.features import FeatureBatch, guess_prior
from autometa.heads.solve import find_members, solve


class Evidence(NamedTuple):
    """The support images of each class, in k places.

    `kept` bool [b, n, k], which places hold an image; `gram` [b, n, k, k], their inner products with each other;
    `cross` [b, n, k, q], those with the queries; zero for empty places.
    """

    kept: torch.Tensor
    gram: torch.Tensor
    cross: torch.Tensor


def qda(batch: FeatureBatch, *, dof: float, mean_strength: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n]: log of the Student-t predictive density of each class (Murphy 2012, §4.6.3).

    Class mean and covariance have a normal-inverse-Wishart prior from `batch.prior`: mean μ and expected covariance
    S_w (diagonal). The prior mean counts as κ₀ = mean_strength·tr S_w/tr S_b images, the expected covariance as
    `dof` > 0 images. Only Gram matrices of the images of a class are needed, no covariance in feature space.
    """
    prior = batch.prior or guess_prior(batch)
    d = batch.support.shape[-1]
    scale = prior.within.clamp(min=1e-30).rsqrt()
    query = (batch.query - prior.mean) * scale
    support = (batch.support - prior.mean) * scale * batch.support_mask[..., None]
    ratio = prior.within.sum(-1) / prior.between.sum(-1).clamp(min=1e-30)
    strength = mean_strength * ratio.clamp(1e-3, 1e3)
    evidence = _group_by_class(batch, support, query)
    # in these coordinates Ψ₀ = dof·I, and ν₀ = dof + d + 1 makes S_w the expected covariance
    shots = batch.shots
    kappa, tail = strength + shots, dof + 2 + shots
    distance, log_det = _quadratic_form(evidence, query, shots, strength, dof)
    dilation = (kappa + 1) / (kappa * tail)
    log_volume = torch.lgamma((tail + d) / 2) - torch.lgamma(tail / 2)
    log_volume = log_volume - 0.5 * (d * (tail * dilation * math.pi * dof).log() + log_det)
    scaled = distance / (tail * dilation)[..., None]
    scores = log_volume[..., None] - (tail + d)[..., None] / 2 * scaled.log1p()
    return batch.mask_absent(scores.transpose(1, 2))


def _group_by_class(batch: FeatureBatch, support: torch.Tensor, query: torch.Tensor) -> Evidence:
    """Inner products of support [b, s, d] and query [b, q, d], grouped by the class of the support images."""
    order, kept = find_members(batch)
    members = support[torch.arange(len(support), device=order.device)[:, None, None], order]
    members = members * kept[..., None]
    return Evidence(kept, members @ members.transpose(2, 3), members @ query.transpose(1, 2)[:, None])


def _quadratic_form(
    evidence: Evidence, query: torch.Tensor, shots: torch.Tensor, strength: torch.Tensor, dof: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(f-m)ᵀΨ⁻¹(f-m) [b, n, q] and log|Ψ/dof| [b, n] for Ψ = dof·I + XᵀX, m the posterior mean.

    X holds the images less their mean and √(κ₀k/κ)·mean, so that X = TF with a small matrix T.
    """
    kept = evidence.kept.to(query.dtype)
    kappa = strength + shots
    mean = kept / shots.clamp(min=1)[..., None]
    centring = torch.diag_embed(kept) - mean[..., None, :] * kept[..., None]
    last = (strength * shots / kappa).sqrt()[..., None] * mean
    mixing = torch.cat([centring, last[..., None, :]], dim=2)
    inner = mixing @ evidence.gram @ mixing.transpose(2, 3) / dof
    inner.diagonal(dim1=2, dim2=3).add_(1.0)
    posterior = mean * (shots / kappa)[..., None]
    towards = evidence.cross - (evidence.gram @ posterior[..., None])
    length = query.square().sum(-1)[:, None, :] - 2 * (posterior[..., None, :] @ evidence.cross)[:, :, 0]
    length = length + (posterior[..., None, :] @ evidence.gram @ posterior[..., None])[..., 0]
    projected = mixing @ towards
    explained = (projected * solve(inner, projected)).sum(2) / dof
    log_det = torch.linalg.slogdet(inner).logabsdet
    return ((length - explained) / dof).clamp(min=0), log_det
