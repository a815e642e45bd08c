"""Purchases and learners on disk, told as choices."""

from __future__ import annotations

import math

import pytest

from autometa.backbones import View
from autometa.evaluation.estimate import Estimate
from autometa.planning.choice_log import Outcome
from autometa.search.explanation import describe_served, describe_trial, explain_bootstrap
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
