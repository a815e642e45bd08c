"""Where bars, points and ticks of the charts lie."""

import json
from pathlib import Path

import numpy as np
import pytest

from scoring.calibration import reliability
from scoring.charts import draw_curve, draw_histogram, draw_reliability, draw_timeline
from scoring.choices_file import Served
from scoring.run_info import RunInfo, read_run_info
from scoring.stage_times import StageTime

PHASES = (("prepare", 10.0), ("meta_train", 60.0), ("meta_test", 20.0))


def test_stages_lie_within_meta_training_and_meta_test_where_it_began() -> None:
    stages = (
        StageTime("probe", 5.0, 10.0, began_s=20.0),
        StageTime("meta_test", 25.0, 20.0),
        StageTime("search", None, 10.0),
    )
    drawn = draw_timeline(RunInfo(stages=PHASES, stage_times=stages, time_budget_s=100.0, duration_s=90.0))
    assert drawn is not None and drawn.budget == 100
    assert [(phase.left, phase.width) for phase in drawn.phases] == [(0, 10), (10, 60), (70, 20)]
    rows = {row.stage.stage: row for row in drawn.rows}
    assert list(rows) == ["probe", "meta_test", "search"]
    probe, search, test = rows["probe"], rows["search"], rows["meta_test"]
    assert probe.actual and (probe.actual.left, probe.actual.width) == (30, 10)
    assert test.actual and test.predicted and (test.actual.left, test.predicted.width) == (70, 25)
    assert search.predicted is None and search.actual and search.actual.left == 90
    assert drawn.ticks[:2] == ((0, 0), (30, 30))


def test_nothing_leaves_the_timeline() -> None:
    stages = tuple(StageTime("a", 1e9, 1e-9, began_s=1e9) for _ in range(3))
    drawn = draw_timeline(RunInfo(stages=PHASES, stage_times=stages))
    assert drawn is not None and drawn.budget is None
    spans = [span for row in drawn.rows for span in (row.predicted, row.actual) if span]
    assert all(span.left >= 0 and span.left + span.width <= 100 + 1e-9 for span in spans)
    assert draw_timeline(RunInfo()) is None


def test_seconds_beyond_all_sense_are_no_stage(tmp_path: Path) -> None:
    stages = [
        {"name": "meta_train", "seconds": 1e308},
        {"name": "b", "seconds": 1e308},
        {"name": "c", "seconds": 2},
    ]
    (tmp_path / "ingestion.json").write_text(json.dumps({"stages": stages}))
    info = read_run_info(tmp_path)
    assert info.stages == (("c", 2.0),)
    assert draw_timeline(info) is not None


def test_a_curve_needs_two_learners_and_an_accuracy() -> None:
    unknown = Served(seconds=1.0, stage="bootstrap")
    known = Served(seconds=40.0, stage="final", accuracy=0.9, low=0.85, high=0.95)
    run = RunInfo(stages=PHASES, duration_s=100.0)
    assert draw_curve([known], run, 0.8, 0.1) is None
    assert draw_curve([unknown, unknown], run, 0.8, 0.1) is None
    curve = draw_curve([unknown, known], run, 0.8, 0.1)
    assert curve is not None
    first, second = curve.points
    assert (first.x, first.x_end, first.y) == (11, 50, None)
    assert (second.x, second.x_end) == (50, 100)
    assert (second.y, second.top, second.bottom) == pytest.approx((100 / 3, 50 / 3, 50))  # from 1 to 0.7
    assert curve.score == pytest.approx((200 / 3, 100 / 3, 100))


def test_bins_without_queries_have_no_bar() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    bars = draw_reliability(reliability(scores, np.array([0, 0, 0]), np.array([0, 1, 0])))
    assert [(bar.queries, bar.accuracy) for bar in bars] == [(1, 100), (2, 50)]
    assert [bar.share for bar in bars] == [50, 100]
    assert bars[1].confidence == pytest.approx(90)


def test_a_histogram_counts_tasks_from_0_to_1() -> None:
    assert draw_histogram(np.array([-0.3, 0.0, 1.0])) == ((0, 100, 2), (95, 50, 1))
