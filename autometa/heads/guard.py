"""The balanced-prior guard: which episodes may use a head that expects as many queries of each class."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.soft_kmeans import soft_kmeans

LEAST_QUERIES_PER_WAY = 2
SHARPNESS = 20.0
SUSPICION = 0.35
"""Chi-square per degree of freedom of the guessed class counts up to which queries pass for balanced. Counts
drawn at random from equal classes have 1, those drawn equally 0 and what the guesses get wrong."""


def has_enough_queries(batch: FeatureBatch) -> torch.Tensor:
    """Episodes, bool [b], with queries enough for their mean to say something: at least two per way."""
    return batch.query_mask.sum(1) >= LEAST_QUERIES_PER_WAY * batch.ways


def looks_balanced(batch: FeatureBatch) -> torch.Tensor:
    """Episodes, bool [b], whose queries are most likely drawn equally from all classes: their number can be
    divided by that of the classes, and soft k-means, which expects nothing, finds near equal classes."""
    asked = batch.query_mask.sum(1)
    guess = soft_kmeans(batch, sharpness=SHARPNESS).softmax(-1) * batch.query_mask[..., None]
    expected = (asked / batch.ways)[:, None]
    surprise = (guess.sum(1) - expected).square() / expected * batch.present
    even = asked % batch.ways == 0
    return even & (surprise.sum(-1) <= SUSPICION * (batch.ways - 1))


def find_trusted(batch: FeatureBatch, *, needs_balance: bool, balanced: bool) -> torch.Tensor:
    """Episodes, bool [b], on which a transductive head may run: with enough queries, and, where it
    `needs_balance`, declared `balanced` or found so."""
    enough = has_enough_queries(batch)
    if not needs_balance or balanced:
        return enough
    return enough & looks_balanced(batch)
