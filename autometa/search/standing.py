"""How a search stands: what it has tried, and what its portfolio promises so far."""

from __future__ import annotations

from autometa.core.progress import Progress
from autometa.evaluation.estimate import Estimate
from autometa.search.explanation import told_accuracy
from autometa.search.shop import Shop


def standing(shop: Shop, stage: str, estimate: Estimate | None = None) -> Progress:
    """The standing of a search: with its final `estimate`, or else with the accuracy of the portfolio as it is now in
    the episodes of held-out classes, whose interval is the wider one of that over episodes and that over folds."""
    told, trials = estimate or told_accuracy(shop.draft), len(shop.receipts)
    return Progress(stage, trials, told.accuracy, told.low, told.high) if told else Progress(stage, trials)
