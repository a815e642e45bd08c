"""The metrics that a submission's logger writes: those of scikit-learn, which the original program called."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from ingestion.logger import task_metrics


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ways", [2, 5, None])
def test_metrics_are_those_of_scikit_learn(seed: int, ways: int | None) -> None:
    rng = np.random.default_rng(seed)
    classes = ways or 30
    labels, answers = rng.integers(0, classes, 12), rng.integers(0, classes, 12)
    scores = np.eye(classes)[answers] + rng.random((12, classes)) / 2
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, answers, average="macro", zero_division=0
    )
    expected = {
        "Accuracy": accuracy_score(labels, answers),
        "Macro F1 Score": f1,
        "Macro Precision": precision,
        "Macro Recall": recall,
    }
    if ways is not None:
        expected["Normalized Accuracy"] = (recall - 1 / ways) / (1 - 1 / ways)
    for given in (answers, scores):
        assert task_metrics(labels, given, ways) == pytest.approx(expected)


def test_numbers_of_classes_need_not_begin_at_zero() -> None:
    assert task_metrics(np.array([70, 70, -3]), np.array([70, 9, -3]), None)["Macro Recall"] == pytest.approx(
        0.5
    )
