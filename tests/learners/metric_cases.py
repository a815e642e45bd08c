"""Embedded episodes as arrays, for metric learners that are written by hand."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.heads import FeatureBatch
from autometa.learners.metric.base import MetricLearner, Unlabelled

Array = NDArray[np.float64]


def probabilities(learner: MetricLearner, batch: FeatureBatch, extra: Unlabelled | None = None) -> Array:
    with torch.no_grad():
        return learner.compare(batch, extra)[0].softmax(-1).double().numpy()


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def arrays(batch: FeatureBatch) -> tuple[Array, NDArray[np.int64], Array]:
    return batch.support[0].double().numpy(), batch.support_labels[0].numpy(), batch.query[0].double().numpy()


def squared_distances(points: Array, centres: Array) -> Array:
    return ((points[:, None] - centres[None]) ** 2).sum(-1)


def means_of(batch: FeatureBatch) -> Array:
    support, labels, _ = arrays(batch)
    return np.stack([support[labels == c].mean(0) for c in range(int(batch.ways))])


def unlabelled_like(batch: FeatureBatch, n: int, seed: int = 5) -> Unlabelled:
    generator = torch.Generator().manual_seed(seed)
    means = batch.class_means[0]
    chosen = torch.randint(len(means), (n,), generator=generator)
    values = means[chosen] + torch.randn(n, means.shape[1], generator=generator)
    return Unlabelled(values[None], torch.ones(1, n, dtype=torch.bool))
