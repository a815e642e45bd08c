"""Quadratic discriminants under a normal-inverse-Wishart prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from autometa.heads.features import FeatureBatch, Prior, guess_prior
from autometa.heads.solve import solve


class Evidence(NamedTuple):
    """Support images of each class side by side: `kept` bool [b, n, k] tells which of the k places are
    used, `gram` [b, n, k, k] and `cross` [b, n, k, q] hold their inner products; zero where not kept."""

    kept: torch.Tensor
    gram: torch.Tensor
    cross: torch.Tensor


def qda(batch: FeatureBatch, *, dof: float, mean_strength: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n]: log of the Student-t predictive density of each class (Murphy 2012, §4.6.3).

    Class mean and covariance have a normal-inverse-Wishart prior whose location is `batch.prior`: mean μ,
    expected covariance S_w (diagonal), weight of the mean κ₀ = mean_strength·tr S_w/tr S_b images; `dof` > 0
    says, in images, how much the expected covariance counts. All but Gram matrices of a class is avoided.
    """
    prior = batch.prior or guess_prior(batch)
    d = batch.support.shape[-1]
    scale = prior.within.clamp(min=1e-30).rsqrt()
    query = (batch.query - prior.mean) * scale
    support = (batch.support - prior.mean) * scale * batch.support_mask[..., None]
    strength = mean_strength * _ratio(prior)
    evidence = _by_class(batch, support, query)
    # in these coordinates Ψ₀ = dof·I, and ν₀ = dof + d + 1 makes S_w the expected covariance
    shots = batch.shots
    kappa, tail = strength + shots, dof + 2 + shots
    distance, log_det = _quadratic_form(evidence, query, shots, strength, dof)
    dilation = (kappa + 1) / (kappa * tail)
    log_volume = torch.lgamma((tail + d) / 2) - torch.lgamma(tail / 2)
    log_volume = log_volume - 0.5 * (d * (tail * dilation * math.pi * dof).log() + log_det)
    ratio = distance / (tail * dilation)[..., None]
    scores = log_volume[..., None] - (tail + d)[..., None] / 2 * ratio.log1p()
    return batch.mask_absent(scores.transpose(1, 2))


def _ratio(prior: Prior) -> torch.Tensor:
    ratio = prior.within.sum(-1) / prior.between.sum(-1).clamp(min=1e-30)
    return ratio.clamp(1e-3, 1e3)


def _by_class(batch: FeatureBatch, support: torch.Tensor, query: torch.Tensor) -> Evidence:
    most = int(batch.shots.max())
    # the places of a class's images come first when its column of labels is sorted in descending order
    order = batch.one_hot.argsort(dim=1, descending=True, stable=True)[:, :most].transpose(1, 2)
    kept = torch.arange(most, device=order.device) < batch.shots[..., None]
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
