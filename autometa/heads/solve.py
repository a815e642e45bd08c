"""Linear algebra that heads share: stable solutions of batches of small systems."""

from __future__ import annotations

from dataclasses import replace

import torch

from autometa.heads.features import FeatureBatch

JITTER = 1e-6
"""Added to a diagonal, relative to the trace: larger than rounding errors of float32, too small to change scores."""


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factor [..., m, m], float64, of a positive semidefinite matrix plus a little jitter. The matrix
    can have zero rows and columns, as from padding."""
    exact = matrix.double()
    diagonal = exact.diagonal(dim1=-2, dim2=-1)
    jitter = diagonal.abs().sum(-1, keepdim=True) * JITTER + 1e-30
    factor: torch.Tensor = torch.linalg.cholesky_ex(exact + torch.diag_embed(jitter.expand_as(diagonal))).L
    return factor


def solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """matrix⁻¹·right for positive semidefinite matrices [..., m, m]; computed in float64, returned in the type of
    `right`."""
    return torch.cholesky_solve(right.double(), cholesky(matrix)).to(right.dtype)


def in_support_span(batch: FeatureBatch) -> FeatureBatch:
    """The batch in coordinates of the span of its support: support [b, s, s] and query [b, q, s] instead of d
    dimensions.

    Inner products with support features stay the same. The part of a query outside the span is dropped, since it is
    the same for every class; so is the prior. If s ≥ d, only the prior is dropped.
    """
    if batch.support.shape[1] >= batch.support.shape[2]:
        return replace(batch, prior=None)
    factor = cholesky(batch.support @ batch.support.transpose(1, 2))
    cross = (batch.support @ batch.query.transpose(1, 2)).double()
    query = torch.linalg.solve_triangular(factor, cross, upper=False).transpose(1, 2)
    support = factor.to(batch.support.dtype) * batch.support_mask[..., None]
    return replace(batch, support=support, query=query.to(support.dtype), prior=None)
