"""Latency: percentiles of warm calls, the cold one apart, and images that no call had before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import FakeClock

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.errors import DataError
from autometa.evaluation.member import plain_member
from autometa.model.fitted_learner import FittedLearner
from autometa.model.latency import FEWER, WARM_UPS, Latency, Timing, measure_latency

IMAGES = np.zeros((4, 3, 8, 8), np.uint8)
LABELS = np.array([0, 0, 1, 1])


class Slow:
    """A learner whose calls take what they are told to on a clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.seen, self.adapted, self.asked = clock, set[bytes](), 0, 0

    def look(self, images: np.ndarray, first_s: float, s: float, n: int) -> None:
        assert images.tobytes() not in self.seen
        self.seen.add(images.tobytes())
        self.clock.now += s if n else first_s

    def fit(self, images: np.ndarray, labels: np.ndarray, ways: int) -> Slow:
        assert ways == 2 and labels.tolist() == LABELS.tolist()
        self.look(images, 3.0, 0.5, self.adapted)
        self.adapted += 1
        return self

    def predict(self, images: np.ndarray) -> Any:
        self.look(images, 1.0, 0.01 * len(images), self.asked)
        self.asked += 1


def test_cold_and_warm_calls_are_told_apart() -> None:
    clock = FakeClock()
    learner = Slow(clock)
    found = measure_latency(learner, (IMAGES, LABELS), IMAGES[:3], repeats=16, clock=clock)
    assert found.adapt == Timing(500.0, 500.0, 500.0, 3000.0)
    assert [found.predict.p50_ms, found.predict.p99_ms, found.predict.cold_ms] == pytest.approx(
        [10, 10, 1000]
    )
    assert found.batch.p95_ms == pytest.approx(30)
    fewer = max(16 // FEWER, 3)
    assert learner.adapted == 2 + fewer and learner.asked == 1 + WARM_UPS + 16 + 2 + fewer
    assert (found.px, found.ways, found.support_images, found.batch_images) == (8, 2, 4, 3)
    assert "one image of 8 px in 10.0 ms (p95 10.0)" in found.describe()
    told = found.to_json()
    assert told["predict"]["cold_ms"] == 1000.0 and Latency(**told | {
        name: Timing(**told[name]) for name in ("adapt", "predict", "batch")
    }).px == 8  # fmt: skip


def test_percentiles() -> None:
    found = Timing.of(1.0, [each / 1000 for each in range(101)])
    assert [found.p50_ms, found.p95_ms, found.p99_ms] == pytest.approx([50, 95, 99])


def test_there_must_be_something_to_measure() -> None:
    with pytest.raises(DataError, match="a query image or more"):
        measure_latency(Slow(FakeClock()), (IMAGES, LABELS), IMAGES[:0])


def test_a_saved_learner_is_measured_as_it_was_saved(tiny_backbone: str, tmp_path: Path) -> None:
    learner = FittedLearner((plain_member(View(tiny_backbone, 32)),), BackboneShelf("cpu"), {})
    learner.save(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    found = measure_latency(tmp_path, (images, LABELS), images[:2], repeats=4)
    assert 0 < found.predict.p50_ms <= found.predict.p95_ms <= found.predict.p99_ms
    assert found.ways == 2 and found.batch_images == 2 and found.px == 32
