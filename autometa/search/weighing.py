"""Weights from evidence: soft, and shrunk towards equal weights by what the evidence is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autometa.evaluation.accuracy import Scores, paired_gain

Accuracies = NDArray[np.float64]
"""Accuracy of every option in every fold, float64 [options, folds]."""


def shrinkage_of(signal: float, noise: float) -> float:
    """Share from 0 to 1 of a measured difference to believe: `signal` is its variance as measured, which includes the
    variance `noise` of the measurement (James and Stein 1961)."""
    return max(signal - noise, 0.0) / signal if signal > 0 else 0.0


def shrink_gain(gain: float, error: float) -> float:
    """A measured gain times the share of it to believe, given its standard error."""
    return gain * shrinkage_of(gain**2, error**2)


def soft_weights(accuracies: Accuracies, softness: float) -> NDArray[np.float64]:
    """Weights [options] that sum to 1: softmax of the mean accuracies [options, folds] over `softness`. Differences
    between options are first shrunk by their noise between folds; with one fold nothing is known of that, and half
    of a difference counts."""
    means = accuracies.mean(1)
    centred = means - means.mean()
    believed = 0.5
    if accuracies.shape[1] > 1 and len(means) > 1:
        residual = accuracies - means[:, None] - accuracies.mean(0) + accuracies.mean()
        spare = (accuracies.shape[0] - 1) * (accuracies.shape[1] - 1)
        noise = float((residual**2).sum() / spare / accuracies.shape[1])
        believed = shrinkage_of(float((centred**2).sum() / (len(means) - 1)), noise)
    powers = np.exp(believed * (centred - centred.max()) / softness)
    weights: NDArray[np.float64] = powers / powers.sum()
    return weights


def without_fold(accuracies: Accuracies, fold: int) -> Accuracies:
    """The accuracies in all folds but one."""
    return np.delete(accuracies, fold, axis=1)


def fold_error(differences: Sequence[float]) -> float:
    """Standard error of the mean of differences, one of each fold; infinite for a single one."""
    if len(differences) < 2:
        return float("inf")
    return float(np.std(differences, ddof=1) / len(differences) ** 0.5)


def compare_folds(before: Sequence[Scores], after: Sequence[Scores]) -> tuple[float | None, float | None]:
    """Gain between two answers to the same episodes, fold by fold, and its standard error; None where there is
    nothing to compare."""
    if not before:
        return None, None
    gain, by_episode = paired_gain(np.concatenate(after), np.concatenate(before))
    by_fold = fold_error([float((a - b).mean()) for b, a in zip(before, after, strict=True)])
    return gain, by_episode if np.isinf(by_fold) else max(by_fold, by_episode)
