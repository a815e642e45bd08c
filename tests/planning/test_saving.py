"""Seconds for saving go by bytes: those that are not on disk yet, as fast as earlier ones were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import FakeClock

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.files import save_tensors
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.model import learner_folder
from autometa.model.learner_folder import GUESS_BYTES, LearnerFolder
from autometa.planning.forecast import HALF_BYTES, MATRICES, Forecast
from autometa.planning.saving import GUESS_S, LEAST_S, MEASURED_BYTES, SavingCosts

MB = 10**6


def test_seconds_go_by_bytes_as_measured() -> None:
    costs = SavingCosts()
    assert costs.seconds(0) == LEAST_S
    assert costs.seconds(100 * MB) == pytest.approx(LEAST_S + POLICY.slowdown * GUESS_S * 100 * MB)
    costs.add(5.0, MEASURED_BYTES - 1)  # that took so long for another reason
    costs.add(LEAST_S + 2.0, 10 * MB)
    costs.add(LEAST_S + 8.0, 40 * MB)
    assert costs.seconds(100 * MB) == pytest.approx(LEAST_S + POLICY.slowdown * 20.0)


class Learner:
    """A learner that takes a second to save, of so many numbers."""

    def __init__(self, clock: FakeClock, numbers: int) -> None:
        self.validation: dict[str, Any] = {"stage": "final"}
        self._clock, self._weights = clock, {"weights": torch.arange(numbers)}

    def save(self, folder: Path) -> None:
        self._clock.now += 1.0
        save_tensors(folder, "network", self._weights)


def test_a_folder_learns_from_what_it_has_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, costs = FakeClock(), SavingCosts()

    def elapsed() -> Any:
        began = clock.now
        return lambda: clock.now - began

    monkeypatch.setattr(learner_folder, "stopwatch", elapsed)
    folder = LearnerFolder(tmp_path, lambda _: None, costs)
    assert folder.save_again_s() == costs.seconds(GUESS_BYTES)
    folder.save(Learner(clock, 500_000))  # 4 MB
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written > 4 * MB
    assert folder.save_again_s() == pytest.approx(LEAST_S + POLICY.slowdown * (1.0 - LEAST_S))
    before_s = costs.seconds(MB)
    folder.save(Learner(clock, 500_000))  # which is there already
    assert costs.seconds(MB) == before_s


def test_only_what_is_not_on_disk_counts(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_resnet", 0.5, 64, "none"))
    shelf, budget, memory = BackboneShelf("cpu"), TimeBudget.of(1000), MemoryBudget(2**40)
    test = TestSpec(100, EpisodeSpec((2, 4), (1, 5), 3), 1000, "x")
    forecast = Forecast(test, Limits(budget, budget, memory), shelf, FeatureStore(shelf, memory), 1.0)
    views = [View(tiny_backbone, 32), View(tiny_backbone, 48), View("tiny2", 32)]
    networks = [shelf(name) for name in (tiny_backbone, "tiny2")]
    weights = networks[0].weight_bytes
    assert weights == sum(tensor.nbytes for tensor in networks[0].model.state_dict().values()) > 0
    metrics = HALF_BYTES * MATRICES * sum(networks[0].widths.values()) ** 2
    seconds = forecast.saving.seconds
    assert forecast.save_s(views[:1]) == seconds(weights + metrics)
    assert forecast.save_s(views[:2]) == seconds(weights + 2 * metrics)
    assert forecast.save_s(views) == seconds(2 * weights + 3 * metrics)
    forecast.on_disk = set(views[:1])
    assert forecast.save_s(views[:1]) == seconds(0)
    assert forecast.save_s(views[:2]) == seconds(metrics)
    assert forecast.save_s([*views[:1], View(tiny_backbone, 32, variant="tuned")]) == seconds(
        weights + metrics
    )
    assert forecast.finish_s(views) == POLICY.ensemble_s + seconds(weights + 2 * metrics)
    forecast.saving.add(LEAST_S + 10.0, 10 * MB)
    assert forecast.save_s(views) == pytest.approx(LEAST_S + POLICY.slowdown * (weights + 2 * metrics) / MB)
