"""Timing a saved learner for a point of the grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.evaluation.member import plain_member
from autometa.model.fitted_learner import FittedLearner
from autometa.tuning.latency import Latencies, measure_latencies
from autometa.tuning.latency_child import time_learner


@pytest.mark.medium
def test_a_saved_learner_is_timed_on_the_task_of_the_limits(tiny_backbone: str, tmp_path: Path) -> None:
    FittedLearner((plain_member(View(tiny_backbone, 32)),), BackboneShelf("cpu"), {}).save(tmp_path)
    found = time_learner(tmp_path, 32)
    for one in (found.adapt_ms, found.predict_ms, found.predict_batch_ms):
        assert 0 < one.p50 <= one.p95 <= one.p99 and one.cold > 0
    assert Latencies.model_validate_json(found.model_dump_json()) == found


@pytest.mark.medium
def test_what_cannot_be_timed_is_said_with_its_reason(tmp_path: Path) -> None:
    told = measure_latencies(tmp_path / "nothing", 32)
    assert isinstance(told, str) and told.startswith("latency: not measured (")
    assert "nothing" in told
