"""Whole runs of autometa that are small and alike: tiny networks, and a clock that moves when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import TickingClock, colour_pool

from autometa.core import budget
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.core.time_policy import TimePolicy
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.stage_log import JOURNAL
from autometa.systems.autometa import Controller

SPEC = EpisodeSpec(ways=(2, 3), shots=(1, 2), queries_per_class=2)
TEST = TestSpec(tasks=5, episodes=SPEC, images=50, protocol="within-domain")
POLICY = TimePolicy(save_every_s=0.0)
POOL = colour_pool(classes=6, per_class=5, datasets=1)
TICK_S, BUDGET_S = 0.001, 60.0


class SmallRuns:
    """Runs of the controller with one tiny backbone, on a clock of their own."""

    def __init__(self, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backbone, self._monkeypatch = backbone, monkeypatch
        self.clock: TickingClock = TickingClock(TICK_S)

    def make(self, folder: Path | None, report: Callable[[str], Any], **settings: Any) -> Controller:
        """A controller whose clock begins now."""
        self.clock = TickingClock(TICK_S)
        self._monkeypatch.setattr(budget, "now", self.clock)
        usual: dict[str, Any] = {
            "backbones": (self.backbone,),
            "resolutions": (48,),
            "validation_episodes": 10,
            "max_trials": 1,
            "tune_steps": 0,
            "families": (),
        }
        time = TimeBudget.of(BUDGET_S, self.clock)
        limits = Limits(time, time, MemoryBudget(8 * 2**30))
        return Controller(Settings(**(usual | settings)), TEST, limits, folder, report, 1.0, POLICY)

    def __call__(self, folder: Path, **settings: Any) -> list[str]:
        """A run to its end; what it reported."""
        lines: list[str] = []
        run = self.make(folder, lines.append, **settings)
        run.bootstrap()
        run.run(POOL)
        return lines


def choice_of(folder: Path) -> dict[str, Any]:
    """What the learner in a folder consists of, without what was measured of its speed."""
    learner = load_learner(folder)
    assert isinstance(learner, Portfolio), learner
    answers = learner.fit(*support()).predict(POOL.images[queries()])
    return {
        "views": [str(view) for view in learner.views],
        "modes": {mode.name: round(mode.weight, 6) for mode in learner.modes},
        "stage": learner.validation["stage"],
        "answers": np.round(answers, 4).tolist(),
    }


def support() -> tuple[Any, Any, int]:
    """Two images each of three classes, with their labels, and the number of ways."""
    rows = np.concatenate([POOL.rows_of_class[label][:2] for label in range(3)])
    return POOL.images[rows], np.arange(3).repeat(2), 3


def queries() -> Any:
    """Rows of one image each of three classes."""
    return np.array([POOL.rows_of_class[label][3] for label in range(3)])


def answers_well(folder: Path) -> str:
    """Answer a task with the learner in a folder; the stage at which it was made."""
    learner = load_learner(folder)
    answer = learner.fit(*support()).predict(POOL.images[queries()])
    assert answer.shape == (3, 3)
    np.testing.assert_allclose(answer.sum(1), 1, atol=1e-6)
    return str(learner.validation["stage"])


def receipts(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of the journal that are about purchases."""
    text = (folder / JOURNAL).read_text() if (folder / JOURNAL).exists() else ""
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [row for row in rows if "purchase" in row]


def measured(folder: Path) -> list[dict[str, Any]]:
    """Those of which a gain was measured."""
    return [row for row in receipts(folder) if row["gain"] is not None]
