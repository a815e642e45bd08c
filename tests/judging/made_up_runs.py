"""Made-up submissions and runs of a judging, for the tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from autometa.executors.executor import Sequential
from autometa.judging.executor import Play, played
from autometa.judging.judge import list_units
from autometa.judging.ledger import Identity, Ledger, Row
from autometa.judging.submissions import Submission, Unit

TASKS = 12
SKILL = {"good": 0.8, "fair": 0.7, "bad": 0.1}
IDENTITY = Identity(dataset="photos", options={"time_budget": "30s"})


def submissions(*names: str) -> list[Submission]:
    """Submissions that have no files."""
    return [Submission(name, Path(name), f"digest of {name}") for name in names]


def units(*names: str, seeds: tuple[int, ...] = (0, 1)) -> list[Unit]:
    """Units of submissions that have no files."""
    return list_units(submissions(*names), seeds)


def made_up(unit: Unit) -> Row:
    """A run whose tasks depend on the seed alone, and whose accuracy on the skill of the submission."""
    own = unit.submission
    hardness = np.random.default_rng(unit.seed).normal(0, 0.1, TASKS)
    return Row(
        submission=own.name,
        seed=unit.seed,
        digest=own.digest,
        status="ok",
        accuracies=tuple((SKILL[own.name] + hardness).tolist()),
        drawn=f"tasks of {unit.seed}",
        wall_s=10.0,
        machine="2 cores",
    )


def one_by_one(play: Play) -> Sequential[Unit, Row | None]:
    """One run after the other, in the thread that waits."""
    return Sequential(partial(played, play))


def opened(file: Path) -> Ledger:
    """The ledger in a file, ready for rows."""
    ledger = Ledger(file)
    ledger.open(IDENTITY)
    return ledger
