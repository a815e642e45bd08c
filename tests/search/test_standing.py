"""What a search says of itself while it goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from autometa.core.progress import Progress
from autometa.evaluation.estimate import Estimate
from autometa.search.shop import Shop
from autometa.search.standing import standing


def shop(*folds: list[float], receipts: int = 3) -> Shop:
    """One whose portfolio has these accuracies in the episodes of each fold."""
    draft: Any = SimpleNamespace(answers=list(folds), accuracies=lambda: [np.array(fold) for fold in folds])
    return cast(Shop, SimpleNamespace(draft=draft, receipts=[None] * receipts))


def test_the_final_estimate_is_taken_as_it_is() -> None:
    found = standing(shop([0.1, 0.2]), "final", Estimate(0.6, 0.5, 0.7))
    assert found == Progress("final", 3, 0.6, 0.5, 0.7)


def test_without_evidence_there_is_no_score() -> None:
    assert standing(shop(receipts=0), "search") == Progress("search", 0)
    assert standing(shop([0.5]), "search") == Progress("search", 3)


def test_the_interval_is_the_wider_one_of_episodes_and_folds() -> None:
    of_episodes = [0.2, 0.4, 0.6, 0.8]
    one = standing(shop(of_episodes), "search")
    half = 1.96 * np.std(of_episodes, ddof=1) / 2
    assert one.score == pytest.approx(0.5)
    assert (one.low, one.high) == pytest.approx((0.5 - half, 0.5 + half))
    unlike = standing(shop([0.1] * 4, [0.7] * 4), "search")
    half = 1.96 * np.std([0.1, 0.7], ddof=1) / 2**0.5
    assert (unlike.low, unlike.high) == pytest.approx((0.4 - half, 0.4 + half))
    sure = standing(shop([1.0] * 4, [1.0] * 4), "search")
    assert (sure.low, sure.high) == (1.0, 1.0)
