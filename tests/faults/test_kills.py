"""SIGKILL at any moment at which something changes on the disk, and what a later run makes of what is left.

A kill leaves what is on the disk at that moment. So one run is enough, of which every such state is kept: before and
after each rename, flush, deletion and line, and with half of a file.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from disks import Snapshots
from grid_cases import FakeRunner, tune
from small_runs import TEST, SmallRuns, answers_well, choice_of, measured
from synthetic import TickingClock, colour_pool

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.files import DESCRIPTION
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.planning.stage_log import JOURNAL
from autometa.systems import metadelta
from autometa.systems.metadelta import MetaDeltaSystem
from autometa.systems.single_learner import SingleLearnerSystem

RESUMED = 9
"""Of the states, those with which a later run goes on here; any bug in one of them would soon be found."""


def is_last_of(states: list[Path], stage: str) -> Path:
    """The last state in which the learner on disk was of this stage."""
    return [each for each in states if f'"stage": "{stage}"' in (each / DESCRIPTION).read_text()][-1]


@pytest.fixture
def undisturbed(
    small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Snapshots]]:
    """The folder of a run that nobody killed, and its states."""
    folder, store = tmp_path / "whole", tmp_path / "states"
    folder.mkdir()
    states = Snapshots(folder, store)
    with states.taking(monkeypatch):
        lines = small_runs(folder)
    assert not any("stopped early" in line for line in lines), lines
    yield folder, states
    shutil.rmtree(store)  # many copies


@pytest.mark.medium
def test_a_run_killed_whenever_something_changes_on_the_disk(
    undisturbed: tuple[Path, Snapshots], small_runs: SmallRuns
) -> None:
    folder, taken = undisturbed
    states, chosen = sorted(taken.store.iterdir()), choice_of(folder)
    assert len(states) >= 60, taken.moments
    assert {"half learner.json", "half journal.jsonl", "rename stages.json", "rename choices.json"} <= set(
        taken.moments
    )
    with_learner = [each for each in states if (each / DESCRIPTION).exists()]
    assert with_learner == states[-len(with_learner) :]  # once there, a learner is never gone
    stages = [answers_well(each) for each in with_learner]
    order = ["bootstrap", "default", "search", "final"]
    assert stages == sorted(stages, key=order.index) and set(stages) == set(order)
    assert [len(measured(each)) for each in states] == sorted(len(measured(each)) for each in states)
    assert len(measured(folder)) > 0

    named = [states[0], *(is_last_of(with_learner, stage) for stage in order)]
    rng = random.Random(7)
    for killed in dict.fromkeys([*named, *rng.sample(states, RESUMED - len(named))]):
        known = measured(killed)
        lines = small_runs(killed)
        assert not any("stopped early" in line or "cannot" in line for line in lines), lines
        assert choice_of(killed) == chosen
        assert measured(killed)[: len(known)] == known
        assert not known or f"resumed: {len(known)} purchases of earlier runs are known" in "\n".join(lines)
        assert not list(killed.glob(".*"))  # half files are gone
        assert (killed / JOURNAL).read_bytes().endswith(b"\n")


TICK_METADELTA_S = 0.04


def metadelta_run(folder: Path, networks: tuple[View, ...]) -> tuple[MetaDeltaSystem, list[str]]:
    """A run of MetaDelta with two tiny networks, on a clock of its own."""
    lines: list[str] = []
    clock = TickingClock(TICK_METADELTA_S)
    limits = Limits(TimeBudget.of(20, clock), TimeBudget.of(600, clock), MemoryBudget(8 * 2**30))
    return MetaDeltaSystem(TEST, limits, folder, lines.append, 1.0, networks), lines


@pytest.mark.medium
def test_metadelta_killed_whenever_something_changes_on_the_disk(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadelta, "choose_engine", lambda *_: None)
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_efficientnet", 0.5, 64, "none"))
    monkeypatch.setattr(metadelta, "EPISODES", 12)
    always = replace(metadelta.POLICY, save_training_every_s=0.0)  # else by a clock that is not the run's own
    monkeypatch.setattr(metadelta, "POLICY", always)
    networks, pool = (View(tiny_backbone, 32), View("tiny2", 32)), colour_pool(classes=16)
    folder, store = tmp_path / "whole", tmp_path / "states"
    folder.mkdir()
    states = Snapshots(folder, store)
    with states.taking(monkeypatch):
        run, lines = metadelta_run(folder, networks)
        run.bootstrap()
        run.run(pool)
    with_learner = [each for each in sorted(store.iterdir()) if (each / DESCRIPTION).exists()]
    assert len(with_learner) > 30
    described = {(each / DESCRIPTION).read_bytes(): each for each in reversed(with_learner)}
    with_learner = sorted({*described.values(), *random.Random(7).sample(with_learner, 10)})
    stages = [answers_well(each) for each in with_learner]
    order = ["untrained", "training", "final"]
    assert set(stages) == set(order) and stages == sorted(stages, key=order.index), lines

    trained = with_learner[stages.index("final") - 1]
    run, lines = metadelta_run(trained, networks)
    assert run.bootstrap().validation["stage"] == "training"
    assert lines == ["resumed: the learner of an earlier run serves at once"]
    assert answers_well(trained) == "training"  # a kill loses nothing now
    assert run.run(pool).validation["stage"] == answers_well(trained) == "final"


@pytest.mark.medium
def test_what_one_learner_has_learned_stays_until_a_later_run_has_come_as_far(tmp_path: Path) -> None:
    recipe = Recipe(
        encoder=EncoderSpec(network="conv4", px=16, channels=8),
        training=TrainingSettings(max_steps=4, validate_every=2),
    )

    def system(seconds: float) -> SingleLearnerSystem:
        clock = TickingClock(TICK_METADELTA_S)
        limits = Limits(TimeBudget.of(seconds, clock), TimeBudget.of(600, clock), MemoryBudget(8 * 2**30))
        return SingleLearnerSystem(recipe, TEST, limits, tmp_path, lambda _: None)

    run = system(60)
    run.bootstrap()
    run.run(colour_pool(classes=16))
    assert answers_well(tmp_path) == "final"
    late = system(0)
    assert late.bootstrap().validation["stage"] == "final"
    assert late.run(colour_pool(classes=16)).validation["stage"] == "final" == answers_well(tmp_path)


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["rename", "half"])
def test_a_grid_of_budgets_killed_whenever_something_changes_on_the_disk(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "grid", tmp_path / "states"
    states = Snapshots(folder, store)
    with states.taking(monkeypatch):
        tune(folder, FakeRunner())
    expected = json.loads((folder / "budget.json").read_text())["recommendation"]["options"]
    chosen = [
        copy for copy, moment in zip(sorted(store.iterdir()), states.moments, strict=True) if kind in moment
    ]
    for number, state in enumerate(chosen):
        killed = tmp_path / f"killed-{number}"  # beside the dataset
        state.rename(killed)
        done = len(list((killed / "points").glob("[!.]*.json")))
        again = FakeRunner()
        budget = tune(killed, again, resume=True, output=str(killed))
        assert len([name for name, shares in again.ran if shares]) == 3 - done
        assert budget.recommendation is not None
        assert budget.recommendation.options == expected
    assert len(chosen) > 5
