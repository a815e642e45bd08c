"""All support images as neighbours, weighted by a softmax kernel (Vinyals et al. 2016)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch


def kernel_neighbours(batch: FeatureBatch, *, sharpness: float) -> torch.Tensor:
    """Scores [b, q, n]: log of the sum of exp(sharpness·cos(f, f_i)) over the support images i of a class. With a
    large sharpness the nearest neighbour decides."""
    batch = batch.unit()
    logits = sharpness * (batch.query @ batch.support.transpose(1, 2))
    return batch.logsumexp_by_class(logits)
