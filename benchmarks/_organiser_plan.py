"""What an organiser has to judge, which runs of it fail, and whether the ledger tells of all of them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _organiser_run import KINDS, WHOLE

from autometa.judging.ledger import Row

Key = tuple[str, int]
MEASURED = {"wall_s", "machine"}
"""What two runs of the same unit may differ in."""
ENDED = "did not end by itself"
"""In the reason of a run that hung, which has its seconds, too."""


@dataclass(frozen=True)
class Plan:
    """Submissions in a folder, seeds, tasks of each run, and the way in which units fail."""

    folder: Path
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    tasks: int
    fails: Mapping[Key, str]

    @classmethod
    def write(cls, folder: Path, submissions: int, seeds: int, tasks: int) -> Plan:
        """Write the submissions. One unit in a hundred fails in each way, one at least."""
        names = [f"team-{number:03}" for number in range(submissions)]
        drawn = [(name, seed) for name in names for seed in range(seeds)]
        random.Random(7).shuffle(drawn)
        each = max(len(drawn) // 100, 1)
        fails = {unit: KINDS[place // each] for place, unit in enumerate(drawn[: each * len(KINDS)])}
        for name, skill in zip(names, np.linspace(0.2, 1.2, submissions), strict=True):
            own = {str(seed): kind for (of, seed), kind in fails.items() if of == name}
            (folder / name).mkdir(parents=True)
            (folder / name / "skill").write_text(f"{skill:.3f}")
            (folder / name / "fails.json").write_text(json.dumps(own))
        return cls(folder, tuple(names), tuple(range(seeds)), tasks, fails)

    @property
    def keys(self) -> list[Key]:
        """All units."""
        return [(name, seed) for name in self.names for seed in self.seeds]

    def count_lost(self, rows: Mapping[Key, Row]) -> int:
        """Units without a row, or with one that does not tell what happened."""
        return sum(not tells(rows.get(key), self.fails.get(key, "")) for key in self.keys)


def tells(row: Row | None, kind: str) -> bool:
    """Whether a row is there and tells what happened to a run that fails in this way ("": it does not)."""
    if row is None:
        return False
    if kind in WHOLE:
        return row.status == "failed" and bool(row.reason)
    return row.status == "ok" and bool(row.accuracies) and bool(row.unanswered) == bool(kind)


def count_differing(first: Mapping[Key, Row], second: Mapping[Key, Row]) -> int:
    """Units whose rows differ in more than what was measured."""
    return sum(_content(first.get(key)) != _content(second.get(key)) for key in {*first, *second})


def _content(row: Row | None) -> object:
    if row is None:
        return None
    return row.model_dump(exclude=MEASURED | ({"reason"} if ENDED in row.reason else set()))
