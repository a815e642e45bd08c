"""Linear algebra that heads share: inner products and stable solutions of batches of small systems."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch

JITTER = 1e-6
"""Added to a diagonal, relative to the trace: larger than rounding errors of float32, too small to change scores."""
FACTOR_JITTER = 1e-4
"""Added to the diagonal of inner products of images of unit length, so that they have a Cholesky factor."""
WELL_CONDITIONED = 3e-3
"""A system whose diagonal was raised by this share of its trace is solved in float32: rounding errors are at most
about 2e-5 of the solution."""


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factor [..., m, m], float64, of a positive semidefinite matrix plus a little jitter. The matrix
    can have zero rows and columns, as from padding."""
    raised = matrix.to(torch.float64, copy=True)
    diagonal = raised.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(diagonal.abs().sum(-1, keepdim=True) * JITTER + 1e-30)
    factor: torch.Tensor = torch.linalg.cholesky_ex(raised).L
    return factor


def factor_products(products: torch.Tensor) -> torch.Tensor:
    """Features [m, m] of m images with these inner products [m, m], each of unit length. They stand for features of
    many more dimensions. An image whose features are not finite becomes zero."""
    raised = torch.where(products.isfinite(), products, 0.0)
    raised.diagonal().add_(FACTOR_JITTER)
    factor: torch.Tensor = torch.linalg.cholesky(raised)
    return factor


def solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """matrix⁻¹·right for positive semidefinite matrices [..., m, m]; computed in float64, returned in the type of
    `right`."""
    return torch.cholesky_solve(right.double(), cholesky(matrix)).to(right.dtype)


def solve_shifted(matrix: torch.Tensor, shift: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(matrix + shift·I)⁻¹·right, without jitter, for positive semidefinite matrices [..., m, m] and shifts [...].

    Computed in the type of `matrix` where every shift is above `WELL_CONDITIONED`, else in float64.
    """
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    exact = not bool((shift > WELL_CONDITIONED * trace).all())
    kind = torch.float64 if exact else matrix.dtype
    system = matrix.to(kind) + torch.diag_embed(
        shift.to(kind)[..., None].expand(*shift.shape, matrix.shape[-1])
    )
    return torch.cholesky_solve(right.to(kind), torch.linalg.cholesky_ex(system).L).to(right.dtype)


def look_up_products(batch: FeatureBatch) -> torch.Tensor | None:
    """Inner products [b, s + q, s + q] of all images, support first, zero for padding; None where looking them up
    is not cheaper than computing them."""
    if batch.products is None:
        return None
    products = batch.products()
    real = torch.cat([batch.support_mask, batch.query_mask], dim=1).to(products.dtype)
    return products * real[:, :, None] * real[:, None, :]


def support_products(batch: FeatureBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products of the support with itself [b, s, s] and with the query [b, s, q]; zero for padding."""
    support, products = batch.support, look_up_products(batch)
    if products is None:
        return support @ support.transpose(1, 2), support @ batch.query.transpose(1, 2)
    s = support.shape[1]
    return products[:, :s, :s], products[:, :s, s:]


def find_members(batch: FeatureBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The support images of each class, in k places, where k is the largest number of shots: their rows in the
    support, int64 [b, n, k], and which places hold an image, bool [b, n, k]."""
    most = int(batch.shots.max())
    # sorting its one-hot column in descending order puts the images of a class first
    order = batch.one_hot.argsort(dim=1, descending=True, stable=True)[:, :most].transpose(1, 2)
    return order, torch.arange(most, device=order.device) < batch.shots[..., None]
