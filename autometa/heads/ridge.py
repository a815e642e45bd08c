"""Ridge regression onto one-hot labels, in its dual form (R2-D2, Bertinetto et al. 2019)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.solve import solve


def ridge_regression(batch: FeatureBatch, *, strength: float) -> torch.Tensor:
    """Scores [b, q, n] of the weights W that minimise |FW - Y|² + strength·|W|².

    Solved as W = Fᵀ(FFᵀ + strength·I)⁻¹Y, an s × s system. Labels Y are centred: 1 - 1/ways for the class of an
    image, -1/ways for others.
    """
    gram = batch.support @ batch.support.transpose(1, 2)
    gram.diagonal(dim1=1, dim2=2).add_(strength)
    targets = batch.one_hot - batch.support_mask[..., None] / batch.ways[:, None, None]
    weights = solve(gram, targets)
    return batch.mask_absent(batch.query @ batch.support.transpose(1, 2) @ weights)
