"""Figures of episodes: normalised accuracy, calibration error, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

CALIBRATION_BINS = 15


Scores = NDArray[np.float64]


def normalised_accuracy(scores: torch.Tensor, labels: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
    """Per episode (macro recall - 1/ways) / (1 - 1/ways), float64 [b], of scores [b, q, n] for labels [b, q]
    (-1: padding) (Cross-Domain MetaDL)."""
    classes = torch.arange(scores.shape[-1])
    of_class = (labels[..., None] == classes).double()
    hits = (scores.argmax(-1) == labels).double()[..., None] * of_class
    present = of_class.sum(1) > 0
    recall = hits.sum(1) / of_class.sum(1).clamp(min=1)
    chance = 1 / ways.double()
    return (recall.sum(1) / present.sum(1) - chance) / (1 - chance)


def calibration_error(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Expected calibration error (Guo et al. 2017) of log-probabilities [b, q, n] for labels [b, q] (-1:
    padding), over all queries: accuracy against confidence, the largest probability, in 15 bins of equal width.
    NaN where there is no query."""
    return _pooled_error([_confidence_and_hits(scores, labels)])


def _confidence_and_hits(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Confidence, and whether it is right, of each query that is no padding: float64 [2, queries]."""
    confidence, guess = scores.max(-1)
    real = labels >= 0
    return torch.stack([confidence[real].double().exp(), (guess == labels)[real].double()])


def _pooled_error(parts: Sequence[torch.Tensor]) -> float:
    confidence, hits = torch.cat(list(parts), dim=1)
    bins = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add(0, bins, hits - confidence)
    return float(gaps.abs().sum() / len(bins)) if len(bins) else math.nan


def interval95(scores: Scores) -> float:
    """Half-width of the 95 % Student-t interval of the mean; 0 for a single score."""
    if len(scores) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores)))


def paired_gain(ours: Scores, theirs: Scores) -> tuple[float, float]:
    """Mean difference on the same episodes, and its standard error."""
    difference = ours - theirs
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
