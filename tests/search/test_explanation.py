"""Purchases and learners on disk, told as choices."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autometa.backbones import View
from autometa.evaluation.estimate import Estimate
from autometa.heads.refine import DEFAULT_REFINEMENT
from autometa.planning.choice_log import Outcome
from autometa.search.explanation import (
    describe_served,
    describe_trial,
    explain,
    explain_bootstrap,
    list_members,
    told_accuracy,
)
from autometa.search.final_weights import FinalWeights
from autometa.search.purchases import Purchase, Receipt
from autometa.search.shop import UNDONE

BOUGHT = Receipt(Purchase("view", View("test_net", 32)), 1.5, 0.01, 0.02, 0.005)


@pytest.mark.parametrize(
    ("receipt", "outcome", "note"),
    [
        (BOUGHT, "kept", ""),
        (Receipt(BOUGHT.purchase, 1.5, 0.01, -0.02, 0.005, UNDONE), "undone", ""),
        (Receipt(BOUGHT.purchase, 1.5, 0.01, note="MemoryError: full"), "failed", "MemoryError: full"),
    ],
)
def test_a_receipt_says_what_came_of_a_purchase(receipt: Receipt, outcome: Outcome, note: str) -> None:
    trial = describe_trial(receipt, 2.0)
    assert (trial.name, trial.kind, trial.predicted_s, trial.actual_s) == ("test_net@32", "view", 2.0, 1.5)
    assert (trial.outcome, trial.note, trial.gain) == (outcome, note, receipt.gain)


def test_an_unknown_error_is_none_since_json_has_no_infinity() -> None:
    assert describe_trial(Receipt(BOUGHT.purchase, 1.5, 0.01, 0.02, math.inf), 2.0).error is None


def test_what_was_promised_comes_with_its_interval() -> None:
    served = describe_served("final", Estimate(0.9, 0.8, 1.0))
    assert (served.stage, served.accuracy, served.low, served.high) == ("final", 0.9, 0.8, 1.0)
    assert served.seconds > 0 and describe_served("bootstrap", None).accuracy is None


def test_the_bootstrap_is_explained_in_two_sentences() -> None:
    sentences = explain_bootstrap(View("test_net", 32))
    assert "test_net@32" in sentences[0] and all(text.endswith(".") for text in sentences)


PLAIN, TRAINED = View("test_net", 32), View("test_net", 32, variant="tuned")
WEIGHTS = FinalWeights(
    {PLAIN: 0.25, TRAINED: 0.75},
    {"root": 3.0, "plain": 1.0},
    DEFAULT_REFINEMENT,
    estimate=Estimate(0.9, 0.8, 1.0),
)


def draft(*folds: list[float]) -> Any:
    """What an explanation asks of a draft: accuracies of episodes by fold, and of views alone."""
    return SimpleNamespace(
        answers=list(folds),
        accuracies=lambda: [np.array(fold) for fold in folds],
        alone={PLAIN: np.array([0.7, 0.9])},
    )


def test_a_portfolio_is_explained_in_two_sentences() -> None:
    shop: Any = SimpleNamespace(draft=draft(), why_ended=lambda: "2 purchases; there is nothing more to buy")
    what, why = explain(shop, WEIGHTS)
    assert what == (
        "The learner joins 2 views of 1 pretrained backbone (test_net+tuned@32 75 %, test_net@32 25 %; "
        "trained here: 1), and takes the mean of 2 modes."
    )
    assert why == (
        "Time went to what was expected to gain most per second: 2 purchases; there is nothing more to buy; "
        "held-out classes promise a normalised accuracy of 90.0 % (95 %: 80.0 % to 100.0 %)."
    )


def test_members_come_by_weight_and_modes_last() -> None:
    members = list_members(draft(), WEIGHTS)
    assert [(one.kind, one.weight) for one in members] == [
        ("trained", 0.75),
        ("view", 0.25),
        ("mode", 0.75),
        ("mode", 0.25),
    ]
    assert [one.accuracy for one in members] == [None, pytest.approx(0.8), None, None]


def test_the_interval_of_what_folds_tell_counts_their_differences() -> None:
    assert told_accuracy(draft()) is None and told_accuracy(draft([1.0])) is None
    alike, apart = told_accuracy(draft([0.4, 0.6], [0.4, 0.6])), told_accuracy(draft([0.4, 0.4], [0.6, 0.6]))
    assert alike is not None and apart is not None and alike.accuracy == apart.accuracy == 0.5
    assert apart.high - apart.low > alike.high - alike.low > 0
    assert apart.high == pytest.approx(0.5 + 1.96 * 0.1)
