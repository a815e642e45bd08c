"""Purchases: what there is to buy, and what it is expected to gain before and after some were made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from autometa.backbones import TUNED, View
from autometa.core import journals
from autometa.search.purchases import (
    LEAST_GAIN,
    Gains,
    Purchase,
    Receipt,
    distinctness,
    list_purchases,
    predict_accuracy,
    relative_weight,
)

SMALL, LARGE, OTHER = View("net", 64), View("net", 128), View("other", 64)
TRAINED, VIT = View("net", 64, variant=TUNED), View("vit", 70)
"""Transformers have sizes of their own."""
HALF = {SMALL: 0.5, OTHER: 0.5}


def test_there_is_what_is_not_there_yet() -> None:
    held = {SMALL: 2, TRAINED: 1, VIT: 8}
    found = list_purchases([SMALL, LARGE, OTHER], held, [TUNED, "anil"])
    assert {str(purchase): purchase.kind for purchase in found} == {
        "net@128": "view",
        "other@64": "view",
        "net@64 in 4 orientations": "turned",
        "vit+tuned@70": "trained",
        "net+anil@64": "trained",
        "vit+anil@70": "trained",
    }
    assert len(found) == 6
    assert not list_purchases([SMALL], {SMALL: 8}, [])
    assert not list_purchases([SMALL], {SMALL: 1}, [], turned=False)


def test_a_copy_is_trained_at_the_smallest_size() -> None:
    found = list_purchases([], {LARGE: 8, SMALL: 8, VIT: 8}, [TUNED])
    assert sorted(str(purchase) for purchase in found) == ["net+tuned@64", "vit+tuned@70"]


def test_further_views_and_larger_weights_gain_more_or_less() -> None:
    gains = Gains(classes=20)
    second = gains.expect(Purchase("view", OTHER), {SMALL: 1.0}, {SMALL: 0.8})
    third = gains.expect(Purchase("view", View("third", 64)), HALF, {SMALL: 0.8, OTHER: 0.8})
    similar = gains.expect(Purchase("view", View("net", 72)), {SMALL: 1.0}, {SMALL: 0.8})
    assert second > third > 0 and second > similar > 0
    worse = gains.expect(Purchase("view", View("other", 72)), HALF, {SMALL: 0.8, OTHER: 0.6})
    better = gains.expect(Purchase("view", View("net", 72)), HALF, {SMALL: 0.8, OTHER: 0.6})
    assert better > worse
    heavy, light = (
        gains.expect(Purchase("turned", SMALL, 2), {SMALL: weight, OTHER: 1 - weight}, {})
        for weight in (0.9, 0.1)
    )
    assert heavy == pytest.approx(9 * light)
    assert (
        Gains(200).expect(Purchase("turned", SMALL, 2), HALF, {}) < 0.1 * light
    )  # enough classes as they are
    tuned, family = (
        gains.expect(Purchase("trained", View("net", 64, variant=name)), HALF, {}) for name in (TUNED, "anil")
    )
    again = gains.expect(
        Purchase("trained", View("other", 64, variant=TUNED)), {SMALL: 0.5, TRAINED: 0.5}, {}
    )
    assert tuned > family > 0 and tuned > again > 0


@pytest.mark.parametrize("factor", [0.0, 0.2, 3.0])
def test_what_was_measured_corrects_what_is_expected(factor: float) -> None:
    gains, next_one = Gains(classes=20), Purchase("view", View("third", 64))
    before = gains.expect(next_one, HALF, {})
    gains.learn("view", "other@64", 0.02, factor * 0.02, 0.0001)
    assert gains.expect(next_one, HALF, {}) == pytest.approx((1 + factor) / 2 * before, rel=0.01)
    for n in range(40):
        gains.learn("view", f"other@{n}", 0.02, factor * 0.02, 0.0001)
    assert gains.expect(next_one, HALF, {}) == pytest.approx(factor * before, abs=0.05 * before)
    turned = Purchase("turned", SMALL, 2)
    assert gains.expect(turned, HALF, {}) == Gains(classes=20).expect(turned, HALF, {})


def test_a_measurement_with_a_large_error_says_little() -> None:
    gains, next_one = Gains(classes=20), Purchase("view", View("third", 64))
    before = gains.expect(next_one, HALF, {})
    gains.learn("view", "other@64", 0.02, -0.05, 0.2)
    assert gains.expect(next_one, HALF, {}) > 0.9 * before


def test_where_little_is_left_to_gain_little_counts() -> None:
    """Held-out classes that are nearly all right do not say that further views are useless."""
    gains, next_one = Gains(classes=20), Purchase("view", View("third", 64))
    usual, easy = {SMALL: 0.75, OTHER: 0.75}, {SMALL: 0.975, OTHER: 0.975}
    assert gains.expect(next_one, HALF, easy) == pytest.approx(0.1 * gains.expect(next_one, HALF, usual))
    assert gains.least(easy) == pytest.approx(0.1 * LEAST_GAIN) and gains.least({}) == LEAST_GAIN
    assert gains.least({SMALL: 1.0}) > 0
    gains.learn("view", "other@64", gains.expect(next_one, HALF, easy), 0.0, 0.001)
    assert gains.expect(next_one, HALF, easy) > 5 * gains.least(easy)


def test_a_loss_is_not_expected_to_come_again_but_no_gain_either() -> None:
    gains = Gains(classes=20)
    gains.learn("view", "other@64", 0.02, -0.03, 0.001)
    assert gains.expect(Purchase("view", View("third", 64)), HALF, {}) == 0.0
    assert not gains.helped("view")
    gains.learn("turned", "net@64 in 2 orientations", 0.005, 0.003, 0.001)
    assert gains.helped("turned") and not gains.helped("trained")


def test_purchases_of_earlier_runs_are_known(tmp_path: Path) -> None:
    receipts = [
        Receipt(Purchase("view", SMALL), 1.23456, 0.0),
        Receipt(Purchase("view", OTHER), 2.0, 0.02, 0.01, 0.002),
        Receipt(Purchase("turned", SMALL, 2), 2.0, 0.005, -0.004, 0.001),
        Receipt(Purchase("trained", TRAINED), 9.0, 0.015, note="BudgetExhausted: late"),
    ]
    file = tmp_path / "journal.jsonl"
    journals.append(file, {"stage": "probe", "actual_s": 1.0})
    for receipt in receipts:
        journals.append(file, receipt.record())
    rows = journals.read(file)
    assert [row.get("kind") for row in rows] == [None, "view", "view", "turned", "trained"]
    assert rows[1]["purchase"] == "net@64" and rows[1]["seconds"] == 1.235
    assert rows[3]["purchase"] == "net@64 in 2 orientations"
    assert json.loads(file.read_text().splitlines()[-1])["note"] == "BudgetExhausted: late"
    gains, direct = Gains(20), Gains(20)
    before = [rows[2] | {"gain": -0.5}]
    assert gains.learn_from([*before, *rows]) == 2  # a purchase counts once, as it was measured last
    direct.learn("view", "other@64", 0.02, 0.01, 0.002)
    direct.learn("turned", "net@64 in 2 orientations", 0.005, -0.004, 0.001)
    for purchase in (receipts[1].purchase, receipts[2].purchase, Purchase("view", View("third", 64))):
        assert gains.expect(purchase, HALF, {}) == direct.expect(purchase, HALF, {})
    assert gains.expect(receipts[1].purchase, HALF, {}) == pytest.approx(0.01 * (1 - 0.04))
    assert gains.expect(receipts[2].purchase, HALF, {}) < LEAST_GAIN  # it is not made again


def test_views_of_a_network_differ_by_size() -> None:
    assert distinctness(SMALL, []) == distinctness(SMALL, [OTHER, TRAINED]) == 1.0
    assert distinctness(LARGE, [SMALL]) == 1.0
    assert 0 < distinctness(View("net", 80), [SMALL, LARGE]) < 0.5
    assert distinctness(SMALL, [SMALL, OTHER]) == 0.0


def test_accuracies_are_predicted_from_those_that_are_alike() -> None:
    known = {SMALL: 0.7, OTHER: 0.9}
    assert predict_accuracy(View("third", 32), known) == pytest.approx(0.8)
    assert predict_accuracy(View("other", 32), known) == pytest.approx(0.85)
    assert predict_accuracy(View("third", 128), known) > 0.8  # finer than all before
    assert relative_weight(View("other", 32), known) > 1 > relative_weight(View("net", 32), known) > 0
    assert relative_weight(SMALL, {}) == 1.0


def test_receipts_in_words() -> None:
    measured = Receipt(Purchase("view", SMALL), 2.0, 0.02, 0.011, 0.004)
    assert str(measured) == "net@64: +1.1 ± 0.4 points, 2.0 expected, in 2.0 s"
    assert "±" not in str(Receipt(Purchase("view", SMALL), 2.0, 0.02, 0.011, math.inf))
    assert str(Receipt(Purchase("view", SMALL), 2.0, 0.02)) == "net@64: gain not measured, in 2.0 s"
    assert "late" in str(Receipt(Purchase("view", SMALL), 2.0, 0.02, note="late"))
