"""SIGKILL at any moment at which something changes on the disk, and what a later run makes of what is left.

A kill leaves what is on the disk at that moment. So one run is enough, of which every such state is kept: before and
after each rename, flush, deletion and line, and with half of a file.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import Snapshots
from small_runs import SmallRuns, answers_well, choice_of, measured

from autometa.core.files import DESCRIPTION
from autometa.planning.stage_log import JOURNAL

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
