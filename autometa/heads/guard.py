"""The guard: which episodes are suitable for a transductive head, above all one that expects balanced queries."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.soft_kmeans import soft_kmeans

LEAST_QUERIES_PER_WAY = 2
SHARPNESS = 20.0
"""Of the soft k-means that guesses the class of each query."""
MOST_IMBALANCE = 0.35
"""Queries count as balanced up to this chi-square per degree of freedom of their guessed class counts. It is about 1
for queries drawn at random from equally likely classes, and 0 plus the errors of the guesses for balanced
queries."""


def has_enough_queries(batch: FeatureBatch) -> torch.Tensor:
    """Which episodes, bool [b], have enough queries for their mean to be useful: two per way or more."""
    return batch.query_mask.sum(1) >= LEAST_QUERIES_PER_WAY * batch.ways


def looks_balanced(batch: FeatureBatch) -> torch.Tensor:
    """Which episodes, bool [b], probably have as many queries of each class.

    The number of queries must be a multiple of the number of classes, and soft k-means, which assumes no balance,
    must find classes of nearly equal size.
    """
    queries = batch.query_mask.sum(1)
    guess = soft_kmeans(batch, sharpness=SHARPNESS).softmax(-1) * batch.query_mask[..., None]
    expected = (queries / batch.ways)[:, None]
    chi_square = (guess.sum(1) - expected).square() / expected * batch.present
    is_multiple = queries % batch.ways == 0
    return is_multiple & (chi_square.sum(-1) <= MOST_IMBALANCE * (batch.ways - 1))


def find_suitable(batch: FeatureBatch, *, needs_balance: bool, balanced: bool) -> torch.Tensor:
    """Which episodes, bool [b], are suitable for a transductive head.

    They need enough queries; if the head `needs_balance`, the queries must be declared `balanced` or look balanced.
    """
    enough = has_enough_queries(batch)
    return enough if balanced or not needs_balance else enough & looks_balanced(batch)
