"""Ridge regression onto one-hot labels, in its dual or primal form (R2-D2, Bertinetto et al. 2019)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.solve import solve, support_products


def ridge_regression(batch: FeatureBatch, *, strength: float) -> torch.Tensor:
    """Scores [b, q, n] of the weights W that minimise |FW - Y|² + strength·|W|².

    Solved as W = Fᵀ(FFᵀ + strength·I)⁻¹Y, an s × s system, or if the dimension d is less than s, as
    W = (FᵀF + strength·I)⁻¹FᵀY, a d × d system. Labels Y are centred: 1 - 1/ways for the class of an image, -1/ways
    for others.
    """
    targets = batch.one_hot - batch.support_mask[..., None] / batch.ways[:, None, None]
    support, query = batch.support, batch.query
    if support.shape[2] < support.shape[1]:
        system, targets = support.transpose(1, 2) @ support, support.transpose(1, 2) @ targets
    else:
        system, cross = support_products(batch)
        query = cross.transpose(1, 2)
    system = system + strength * torch.eye(system.shape[1], dtype=system.dtype, device=system.device)
    return batch.mask_absent(query @ solve(system, targets))


def ridge_weights(support: torch.Tensor, labels: torch.Tensor, ways: int, strength: float) -> torch.Tensor:
    """The weights W [d, n] of `ridge_regression` for one support set, features [s, d] with labels int64 [s]: a query
    [q, d] then scores query·W."""
    targets = torch.nn.functional.one_hot(labels, ways).to(support) - 1 / ways
    dual = support.shape[1] >= support.shape[0]
    system = support @ support.T if dual else support.T @ support
    system.diagonal().add_(strength)
    return support.T @ solve(system, targets) if dual else solve(system, support.T @ targets)
