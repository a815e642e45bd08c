"""Runs on a device whose first calls take seconds, on a fake clock: no plan goes by them, and no task is late.

The device is the CPU in disguise. Its first call in a process takes 8 s, the first of a network at a size 0.3 s,
later ones a millisecond; all other work takes no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autometa_cases import POLICY, POOL, TEST
from synthetic import FakeClock

from autometa.backbones import CATALOGUE, Backbone, BackboneSpec, View
from autometa.backbones.engines import EAGER, ENGINES
from autometa.backbones.network import PixelNetwork
from autometa.core import machine
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.machine import warm_up
from autometa.core.settings import Settings
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.model.trained_ensemble import TrainedEnsemble
from autometa.planning.meta_test import MetaTestSchedule
from autometa.systems import metadelta
from autometa.systems.autometa import Controller
from autometa.systems.metadelta import MetaDeltaSystem
from autometa.systems.single_learner import SingleLearnerSystem

BUDGET_S = 45.0
START_S, FIRST_S, CALL_S, STEP_S = 8.0, 0.3, 0.001, 0.05
IMPORTS_S = 5.0


class Device:
    """The device of one process."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.new_process()

    def new_process(self) -> None:
        """Nothing has run yet."""
        machine._STARTED_S.clear()
        self._seen: set[object] = {None}
        self._started = False

    def call(self, what: object, seconds: float = CALL_S) -> None:
        """A call of this kind."""
        self.clock.now += START_S if not self._started else 0.0
        self.clock.now += seconds if what in self._seen else FIRST_S
        self._started = True
        self._seen.add(what)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    clock = FakeClock()
    device = Device(clock)
    forward, accumulate, prepare = PixelNetwork.forward, EpisodicLearner.accumulate, Backbone.prepare

    def run(self: PixelNetwork, images: torch.Tensor) -> torch.Tensor:
        device.call((id(self), images.shape[-1]))
        return forward(self, images)

    def step(self: EpisodicLearner, episodes: Any) -> float:
        device.call(id(self), STEP_S)
        return accumulate(self, episodes)

    def prepare_eager(self: Backbone, *arguments: Any, **named: Any) -> None:
        prepare(self, *arguments, **named, engines={EAGER: ENGINES[EAGER]})

    monkeypatch.setattr(machine, "COLD_DEVICES", {"cpu"})
    monkeypatch.setattr(machine, "_run_first_kernels", lambda _: device.call(None))
    monkeypatch.setattr("autometa.core.budget.now", clock)
    monkeypatch.setattr(PixelNetwork, "forward", run)
    monkeypatch.setattr(EpisodicLearner, "accumulate", step)
    monkeypatch.setattr(Backbone, "prepare", prepare_eager)
    return device


def begin(device: Device) -> tuple[Limits, float]:
    """The limits of a run whose submission has imported all and started its device, and the seconds it took."""
    began = device.clock.now
    run = TimeBudget.of(BUDGET_S, device.clock)
    device.clock.now += IMPORTS_S
    warm_up("cpu")
    train = TimeBudget(run.deadline - 0.15 * BUDGET_S, device.clock)
    return Limits(train, run, MemoryBudget(8 * 2**30)), device.clock.now - began


def answer_all(learner: Any, device: Device, limits: Limits, ways: int = 3) -> None:
    """Answer the tasks in time, as a new process does."""
    support = np.concatenate([POOL.rows_of_class[c][:4] for c in range(ways)])
    labels = np.arange(ways).repeat(4)
    for number in range(TEST.tasks):
        query = np.concatenate([POOL.rows_of_class[c][4 + number % 4 : 9] for c in range(ways)])
        answer = learner.fit(POOL.images[support], labels, ways).predict(POOL.images[query])
        assert answer.shape == (len(query), ways)
    assert device.clock.now < limits.run.deadline


@pytest.mark.medium
def test_the_controller(device: Device, tiny_backbone: str, tmp_path: Path) -> None:
    lines: list[str] = []
    limits, start_s = begin(device)
    assert start_s == pytest.approx(IMPORTS_S + START_S + CALL_S)
    settings = Settings(
        backbones=(tiny_backbone,),
        resolutions=(32, 48),
        validation_episodes=36,
        max_trials=7,
        tune_steps=0,
        families=(),
    )
    test = replace(TEST, standby=True)
    run = Controller(settings, test, limits, tmp_path, lines.append, start_s, POLICY)
    run.bootstrap()
    run.run(POOL)
    (rate,) = [float(line.split()[2]) for line in lines if line.startswith("probe:")]
    assert rate > 10_000, lines
    assert not any("too slow" in line or "stopped early" in line for line in lines), lines
    assert device.clock.now < limits.train.deadline

    device.new_process()
    warm_up("cpu")
    learner = load_learner(tmp_path, lines.append)
    assert isinstance(learner, Portfolio)
    used: list[int] = []
    learner.follow(MetaTestSchedule.of(test, limits.run, lines.append))
    plan = learner.plan
    assert plan is not None
    begin_task: Callable[..., tuple[int, int]] = plan.begin_task

    def count(store: Any) -> tuple[int, int]:
        views, modes = begin_task(store)
        used.append(views * modes)
        return views, modes

    plan.begin_task = count  # type: ignore[method-assign]
    answer_all(learner, device, limits)
    assert set(used) == {len(learner.views) * len(learner.modes)}, "nothing is dropped"


@pytest.mark.medium
@pytest.mark.parametrize("network", ["conv4", "tiny"])
def test_one_learner(device: Device, tiny_backbone: str, tmp_path: Path, network: str) -> None:
    lines: list[str] = []
    limits, start_s = begin(device)
    conv4 = EncoderSpec(px=32, channels=8)
    recipe = Recipe(
        encoder=conv4 if network == "conv4" else EncoderSpec(network=network, px=32),
        training=TrainingSettings(max_steps=30, validate_every=10),
    )
    system = SingleLearnerSystem(recipe, TEST, limits, tmp_path, lines.append, start_s)
    system.bootstrap()
    learner = system.run(POOL)
    assert learner.validation["stage"] == "final" and learner.validation["steps"] == 30, lines
    assert not any("images fit" in line for line in lines), lines
    device.new_process()
    warm_up("cpu")
    answer_all(load_learner(tmp_path), device, limits)


@pytest.mark.medium
def test_metadelta(
    device: Device, tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_efficientnet", 0.5, 64, "none"))
    monkeypatch.setattr(metadelta, "EPISODES", 12)
    lines: list[str] = []
    limits, start_s = begin(device)
    views = View(tiny_backbone, 32), View("tiny2", 32)
    system = MetaDeltaSystem(TEST, limits, tmp_path, lines.append, start_s, views)
    system.bootstrap()
    learner = system.run(POOL)
    assert learner.validation["stage"] == "final", lines
    assert not any("left out" in line or "no time" in line for line in lines), lines
    assert any("168 of them rotated" in line for line in lines), lines
    device.new_process()
    warm_up("cpu")
    answer_all(TrainedEnsemble.load(tmp_path), device, limits)
