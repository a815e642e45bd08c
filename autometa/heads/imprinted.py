"""Imprinted weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from autometa.heads.centroid import nearest_centroid
from autometa.heads.features import FeatureBatch, unit


def imprinted_weights(batch: FeatureBatch) -> torch.Tensor:
    """Scores [b, q, n]: cosine with the normalised mean of the normalised support features of a class.

    Qi et al. 2018; their scale s is the temperature, which is fitted later.
    """
    return nearest_centroid(replace(batch, support=unit(batch.support)), metric="cosine")
