"""Metrics over episodes: normalised accuracy with its interval, gains on the same episodes, calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.student_t import quantile95

CALIBRATION_BINS = 15

Scores = NDArray[np.float64]
"""The normalised accuracy of each episode, float64 [episodes]."""


def normalised_accuracy(scores: torch.Tensor, labels: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
    """Normalised accuracy of each episode, float64 [b], as in the Cross-Domain MetaDL challenge.

    (recall - 1/ways) / (1 - 1/ways), where recall is the mean over the classes: 1 is perfect, 0 is chance. Scores
    [b, q, n], labels [b, q] (-1: padding), ways [b].
    """
    classes = torch.arange(scores.shape[-1])
    of_class = (labels[..., None] == classes).double()
    hits = (scores.argmax(-1) == labels).double()[..., None] * of_class
    present = of_class.sum(1) > 0
    recall = hits.sum(1) / of_class.sum(1).clamp(min=1)
    chance = 1 / ways.double()
    return (recall.sum(1) / present.sum(1) - chance) / (1 - chance)


def calibration_error(log_p: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> float:
    """Expected calibration error (Guo et al. 2017) over all queries of a list of batches.

    `log_p` are log-probabilities [b, q, n] per batch, `labels` are [b, q] per batch (-1: padding). The confidence of
    a query is its largest probability; accuracy is compared with confidence in 15 bins of equal width. NaN if there
    is no query.
    """
    confidences, hits = [], []
    for batch, truth in zip(log_p, labels, strict=True):
        largest, guess = batch.max(-1)
        real = truth >= 0
        confidences.append(largest[real].double().exp())
        hits.append((guess == truth)[real].double())
    if not any(map(len, hits)):
        return math.nan
    confidence, hit = torch.cat(confidences), torch.cat(hits)
    bins = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add(0, bins, hit - confidence)
    return float(gaps.abs().sum() / len(hit))


def interval95(scores: Scores) -> float:
    """Half-width of the 95 % Student-t confidence interval of the mean of scores [episodes]; 0 for a single score."""
    if len(scores) < 2:
        return 0.0
    return float(quantile95(len(scores)) * scores.std(ddof=1) / np.sqrt(len(scores)))


def paired_gain(ours: Scores, theirs: Scores) -> tuple[float, float]:
    """Mean of ours - theirs on the same episodes, both [episodes], and the standard error of that mean."""
    difference = ours - theirs
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
