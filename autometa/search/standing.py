"""How a search stands: what it has tried, and what its portfolio promises so far."""

from __future__ import annotations

import math

import numpy as np

from autometa.core.progress import Progress
from autometa.evaluation.estimate import Estimate
from autometa.search.shop import Shop
from autometa.search.weighing import fold_error

QUANTILE = 1.96
"""Of the normal distribution, for 95 %."""


def standing(shop: Shop, stage: str, estimate: Estimate | None = None) -> Progress:
    """The standing of a search: with its final `estimate`, or else with the accuracy of the portfolio as it is now in
    the episodes of held-out classes, whose interval is the wider one of that over episodes and that over folds."""
    trials = len(shop.receipts)
    if estimate is not None:
        return Progress(stage, trials, estimate.accuracy, estimate.low, estimate.high)
    folds = shop.draft.accuracies() if shop.draft.answers else []
    scores = np.concatenate(folds) if folds else np.empty(0)
    if len(scores) < 2:
        return Progress(stage, trials)
    mean, by_episode = float(scores.mean()), float(scores.std(ddof=1)) / len(scores) ** 0.5
    by_fold = fold_error([float(fold.mean()) for fold in folds])
    half = QUANTILE * (by_episode if math.isinf(by_fold) else max(by_fold, by_episode))
    return Progress(stage, trials, mean, max(mean - half, -1.0), min(mean + half, 1.0))
