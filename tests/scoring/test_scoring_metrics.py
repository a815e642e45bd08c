"""Metrics of one task and intervals over tasks, against hand-made and library values."""

import numpy as np
import pytest
from scipy.stats import t as student_t
from sklearn.metrics import precision_recall_fscore_support

from scoring.metrics import METRICS, chance_metrics, task_metrics
from scoring.summary import estimate


def test_a_perfect_and_a_constant_prediction() -> None:
    truth = np.array([0, 1, 2, 2, 1, 0])
    assert set(task_metrics(truth, truth, 3).values()) == {1.0}
    constant = task_metrics(truth, np.zeros(6, dtype=np.int64), 3)
    assert constant["normalized_accuracy"] == pytest.approx(0)
    assert constant["macro_precision"] == pytest.approx(1 / 9)  # zero division counts as 0
    assert constant["macro_f1"] == pytest.approx(0.5 / 3)


def test_worse_than_chance_is_negative() -> None:
    truth = np.array([0, 1, 0, 1])
    assert task_metrics(truth, 1 - truth, 2)["normalized_accuracy"] == pytest.approx(-1)


@pytest.mark.parametrize("seed", range(5))
def test_macro_averages_agree_with_scikit_learn_on_unbalanced_queries(seed: int) -> None:
    random = np.random.default_rng(seed)
    ways = int(random.integers(2, 8))
    truth = np.concatenate([np.arange(ways), random.integers(0, ways, 30)])
    predicted = random.integers(0, ways, len(truth))
    expected = precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)[:3]
    scored = task_metrics(truth, predicted, ways)
    keys = ("macro_precision", "macro_recall", "macro_f1")
    assert [scored[key] for key in keys] == pytest.approx(expected, abs=1e-12)


def test_classes_without_query_images_do_not_count() -> None:
    truth = np.array([0, 0, 1])
    assert task_metrics(truth, truth, 4)["macro_recall"] == 1.0
    assert task_metrics(truth, np.array([0, 3, 1]), 4)["macro_recall"] == pytest.approx(0.75)


def test_chance_covers_every_metric() -> None:
    chance = chance_metrics(5)
    assert chance.pop("normalized_accuracy") == 0
    assert set(chance.values()) == {0.2}
    assert len(chance) + 1 == len(METRICS)


@pytest.mark.parametrize("n", [2, 3, 20, 1000])
def test_the_interval_is_student_t(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    low, high = student_t.interval(0.95, n - 1, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(n))
    result = estimate(list(values))
    assert result.mean == pytest.approx((low + high) / 2, abs=1e-9)
    assert result.ci95 == pytest.approx((high - low) / 2, abs=1e-9)


def test_one_task_has_no_interval() -> None:
    assert estimate([0.3]).ci95 == 0
