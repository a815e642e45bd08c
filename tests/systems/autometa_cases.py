"""What the tests of the controller share: a controller with a tiny network, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import colour_pool

from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.core.time_policy import TimePolicy
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.systems.autometa import Controller

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
POLICY = TimePolicy(family_share=0.06, least_family_s=1.0, save_every_s=0.0)
POOL = colour_pool(classes=16)


def controller(
    folder: Path | None, backbone: str, seconds: float = 60.0, lines: list[str] | None = None, **settings: Any
) -> Controller:
    usual: dict[str, Any] = {
        "backbones": (backbone,),
        "resolutions": (32, 48),
        "validation_episodes": 36,
        "max_trials": 7,
        "tune_steps": 0,
        "families": (),
    }
    given = Settings(**(usual | settings))
    budget = TimeBudget.of(seconds)
    limits = Limits(budget, budget, MemoryBudget(8 * 2**30))
    report = (lambda _: None) if lines is None else lines.append
    return Controller(given, TEST, limits, folder, report, 1.0, POLICY)


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def accuracy(learner: Any, pool: ImagePool = POOL, ways: int = 3, shots: int = 4) -> float:
    """On images of the pool, some of which are queries and support."""
    support = np.concatenate([pool.rows_of_class[c][:shots] for c in range(ways)])
    query = np.concatenate([pool.rows_of_class[c][-4:] for c in range(ways)])
    truth = np.concatenate([[c] * len(pool.rows_of_class[c][-4:]) for c in range(ways)])
    labels = np.arange(ways).repeat(shots)
    answer = learner.fit(pool.images[support], labels, ways).predict(pool.images[query])
    np.testing.assert_allclose(answer.sum(1), 1.0)
    return float((answer.argmax(1) == truth).mean())
