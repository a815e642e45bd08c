"""What a run has chosen, in words and numbers for people: see `autometa.planning.choice_log`."""

from __future__ import annotations

import math

import numpy as np

from autometa.backbones import View
from autometa.core.budget import process_age_s
from autometa.evaluation.estimate import Estimate
from autometa.planning.choice_log import Member, Served, Trial
from autometa.search.draft import PortfolioDraft
from autometa.search.final_weights import FinalWeights
from autometa.search.incumbent import Stage
from autometa.search.purchases import Receipt
from autometa.search.shop import UNDONE, Shop
from autometa.search.weighing import fold_error

QUANTILE = 1.96
"""Of the normal distribution, for 95 %."""
NAMED = 4
"""Views that a sentence names."""

RESUMED = (
    "The learner is the one that an earlier run in this folder has saved.",
    "Nothing that this run has made is expected to be better.",
)


def explain_bootstrap(view: View) -> tuple[str, str]:
    """What serves before any image is known, and why."""
    return (
        f"The learner is nearest centroid on {view}, a pretrained backbone that was not trained further.",
        "It is the cheapest backbone whose weights are at hand, and there was no time for a better learner.",
    )


def explain(shop: Shop, weights: FinalWeights) -> tuple[str, str]:
    """What the portfolio of a shop is, and why it is no other."""
    views = sorted(weights.views, key=lambda view: -weights.views[view])
    named = ", ".join(f"{view} {100 * weights.views[view]:.0f} %" for view in views[:NAMED])
    more = f" and {len(views) - NAMED} more" if len(views) > NAMED else ""
    backbones = len({view.backbone for view in views})
    trained = sum(bool(view.variant) for view in views) or "none"
    what = (
        f"The learner joins {_count(len(views), 'view')} of {_count(backbones, 'pretrained backbone')} "
        f"({named}{more}; trained here: {trained}), and takes the mean of {_count(len(weights.modes), 'mode')}."
    )
    estimate = weights.estimate or told_accuracy(shop.draft)
    promise = ""
    if estimate:
        low, accuracy, high = (
            f"{100 * each:.1f} %" for each in (estimate.low, estimate.accuracy, estimate.high)
        )
        promise = f"; held-out classes promise a normalised accuracy of {accuracy} (95 %: {low} to {high})"
    why = f"Time went to what was expected to gain most per second: {shop.why_ended()}{promise}."
    return what, why


def told_accuracy(draft: PortfolioDraft) -> Estimate | None:
    """Normalised accuracy of the portfolio as it is now in the episodes of held-out classes, in the modes in which
    portfolios are compared; None where there are fewer than two."""
    folds = draft.accuracies() if draft.answers else []
    scores = np.concatenate(folds) if folds else np.empty(0)
    if len(scores) < 2:
        return None
    mean, by_episode = float(scores.mean()), float(scores.std(ddof=1)) / len(scores) ** 0.5
    by_fold = fold_error([float(fold.mean()) for fold in folds])
    half = QUANTILE * (by_episode if math.isinf(by_fold) else max(by_fold, by_episode))
    return Estimate(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def describe_trial(receipt: Receipt, predicted_s: float) -> Trial:
    """A purchase as one of the things that were tried."""
    failed = receipt.gain is None and bool(receipt.note)
    error = receipt.error if receipt.error is not None and math.isfinite(receipt.error) else None
    return Trial(
        name=str(receipt.purchase),
        kind=receipt.purchase.kind,
        predicted_s=round(predicted_s, 3),
        actual_s=round(receipt.seconds, 3),
        expected_gain=receipt.expected,
        gain=receipt.gain,
        error=error,
        outcome="undone" if receipt.note == UNDONE else "failed" if failed else "kept",
        note="" if receipt.note == UNDONE else receipt.note,
    )


def describe_served(stage: Stage, estimate: Estimate | None) -> Served:
    """A learner that is on disk from now on."""
    served = Served(seconds=round(process_age_s(), 3), stage=stage)
    if estimate is None:
        return served
    return served.model_copy(
        update={"accuracy": estimate.accuracy, "low": estimate.low, "high": estimate.high}
    )


def list_members(draft: PortfolioDraft, weights: FinalWeights) -> list[Member]:
    """Views and modes of a portfolio, the largest weight first."""
    alone = {view: float(accuracies.mean()) for view, accuracies in draft.alone.items()}
    views = [
        Member(
            name=str(view),
            kind="trained" if view.variant else "view",
            weight=weight,
            accuracy=alone.get(view),
        )
        for view, weight in weights.views.items()
    ]
    total = sum(weights.modes.values())
    modes = [Member(name=name, kind="mode", weight=weight / total) for name, weight in weights.modes.items()]
    return [
        *sorted(views, key=lambda member: -member.weight),
        *sorted(modes, key=lambda member: -member.weight),
    ]


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' if number != 1 else ''}"
