"""The calibration error is that of the paper, and what it leaves out is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring import ScoringSettings, score
from scoring.calibration import BINS, left_out, merge, reliability
from scoring.plots import draw_reliability

MakeRun = Callable[..., Path]

SCORES = np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [1.0, 0.0]])
"""Two queries of one bin, one of which is right; a confidence at the edge of a bin; a certain one."""
PREDICTED, TRUTH = np.array([0, 0, 1, 0]), np.array([0, 1, 1, 0])
BY_HAND = (2 * abs(0.5 - 0.91) + 1 * abs(1 - 0.6) + 1 * 0) / 4


def _scored(make_run: MakeRun, tmp_path: Path, **files: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    summary = score(ScoringSettings(make_run(**files), tmp_path / "scores"))
    scores, details = (
        json.loads((tmp_path / "scores" / name).read_text()) for name in ("scores.json", "details.json")
    )
    return scores, details, summary.report.read_text(encoding="utf-8")


def test_the_error_is_that_computed_by_hand() -> None:
    told = reliability(SCORES, PREDICTED, TRUTH)
    assert told.expected_error == pytest.approx(BY_HAND)
    assert (told.accuracy, told.confidence) == pytest.approx((0.75, 0.855))
    assert {i: n for i, n in enumerate(told.counts) if n} == {8: 1, 13: 2, 14: 1}


def test_tasks_are_pooled_by_query_not_averaged() -> None:
    whole = reliability(SCORES, PREDICTED, TRUTH)
    parts = [reliability(SCORES[s], PREDICTED[s], TRUTH[s]) for s in (slice(0, 1), slice(1, 4))]
    merged = merge([*parts, left_out(unanswered=3)])
    assert merged.expected_error == pytest.approx(whole.expected_error)
    assert (merged.queries, merged.unanswered) == (4, 3)
    assert np.mean([part.expected_error for part in parts]) != pytest.approx(BY_HAND)


def test_probabilities_as_good_as_the_truth_have_no_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 40_000)
    scores = np.stack([confidence, 1 - confidence], axis=1)
    truth = (random.random(40_000) > confidence).astype(np.int64)
    error = reliability(scores, np.zeros_like(truth), truth).expected_error
    assert error is not None
    assert error < 0.01


def test_rows_that_are_no_probabilities_are_left_out() -> None:
    rows = np.array(
        [[0.7, 0.3], [7, 3], [1.2, -0.2], [-1, -2], [1e308, 1e308], [0, -np.inf], [0.7, 0.301], [0.7, 0.2]]
    )
    told = reliability(rows, rows.argmax(axis=1), np.zeros(len(rows), dtype=np.int64))
    assert (told.queries, told.no_probabilities) == (2, 6)
    assert told.expected_error == pytest.approx(0.3)
    nothing = reliability(rows[1:4], np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64))
    assert (nothing.expected_error, nothing.accuracy, nothing.confidence) == (None, None, None)


@pytest.mark.medium
def test_it_stands_by_dataset_and_over_all(make_run: MakeRun, tmp_path: Path) -> None:
    scores, details, page = _scored(make_run, tmp_path)
    told = details["calibration"]
    # One query of ten in B10 is wrong, at a confidence of 0.6; all others are right and sure.
    assert scores["B10_expected_calibration_error"] == pytest.approx(0.6 / 10)
    assert scores["B2_expected_calibration_error"] == 0
    assert scores["expected_calibration_error"] == pytest.approx(0.6 / 14)
    assert told["datasets"]["B10"]["expected_calibration_error"] == pytest.approx(0.6 / 10)
    assert told["overall"]["queries"] == sum(row["queries"] for row in told["bins"]) == 14
    assert told["bins"] == [
        {"above": 8 / BINS, "queries": 1, "confidence": 0.6, "accuracy": 0},
        {"above": 14 / BINS, "queries": 13, "confidence": 1, "accuracy": 1},
    ]
    assert "<b>0.043</b>" in page
    row = '<tr><th scope="row" class="name">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>'
    assert row.format("B10", 10, "0.960", "0.900", "0.060") in page.replace("\n", "")
    assert row.format("all queries", 14, "0.971", "0.929", "0.043") in page.replace("\n", "")
    assert "Left out" not in page
    assert (tmp_path / "scores" / "plots" / "reliability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.medium
def test_what_is_left_out_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    files = {"task_1.predict": "nan nan\n" * 4, "task_3.predict": "1\n1\n0\n0\n"}
    scores, details, page = _scored(make_run, tmp_path, **files)
    told = details["calibration"]["overall"]
    assert (told["queries"], told["unanswered"], told["no_probabilities"]) == (6, 4, 4)
    assert "Left out: 4 queries of tasks without a usable prediction, and 4 queries for which" in page
    assert "B2_expected_calibration_error" not in scores
    assert scores["B10_expected_calibration_error"] == 0


@pytest.mark.medium
def test_without_probabilities_nothing_fails(make_run: MakeRun, tmp_path: Path) -> None:
    logits = {"task_1.predict": "5 -5\n" * 4, "task_2.predict": "1\n" * 6, "task_3.predict": "x"}
    scores, details, page = _scored(make_run, tmp_path, **logits)
    assert details["calibration"]["overall"]["expected_calibration_error"] is None
    assert not [key for key in scores if "calibration" in key]
    assert "no query came with probabilities" in page
    assert not (tmp_path / "scores" / "plots" / "reliability.png").exists()


@pytest.mark.medium
def test_the_main_metric_alone_means_no_calibration(make_run: MakeRun, tmp_path: Path) -> None:
    summary = score(ScoringSettings(make_run(), tmp_path / "scores", debug_mode=0))
    assert "Calibration" not in summary.report.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "scores" / "details.json").read_text())["calibration"] is None


def test_the_diagram_stands_on_a_single_query() -> None:
    assert draw_reliability(reliability(SCORES[:1], PREDICTED[:1], TRUTH[:1])).startswith(b"\x89PNG")
