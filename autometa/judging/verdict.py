"""What the runs say: mean accuracy with its interval, the spread over seeds, ranks, gaps to the best.

A run that failed counts as chance on every task, as a task does that was not answered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import rankdata

from autometa.core.errors import ConfigError
from autometa.evaluation.accuracy import Scores, interval95
from autometa.judging.ledger import Identity, Row

Key = tuple[str, int]
"""A submission and a seed."""


class FailedRun(BaseModel):
    """A run that counts as chance, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    reason: str


class Standing(BaseModel):
    """Where a submission stands. Accuracies are normalised, in per cent: 0 is chance. `ci95`: half-width of the 95 %
    Student-t interval over the tasks of all seeds. `seed_sd`: standard deviation of the means of the seeds, null for
    one seed. `gap`: mean difference to the best one on the same tasks, with `gap_ci95`; null for the best one, and
    `gap_ci95` for a single task. `wall_s`: mean seconds of a run, from outside."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    submission: str
    rank: int
    accuracy: float
    ci95: float
    seed_means: tuple[float, ...]
    seed_sd: float | None
    gap: float | None
    gap_ci95: float | None
    tasks: int
    unanswered: int
    wall_s: float
    longest_s: float
    failed: tuple[FailedRun, ...] = ()


class Verdict(BaseModel):
    """The content of `judging.json`. `standings`: best first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-verdict-1"] = "autometa-verdict-1"
    dataset: str
    options: dict[str, str]
    seeds: tuple[int, ...]
    machines: tuple[str, ...]
    standings: tuple[Standing, ...]

    @property
    def scored(self) -> bool:
        """Whether any run was scored."""
        return any(len(each.failed) < len(self.seeds) for each in self.standings)


def decide(
    identity: Identity, names: Sequence[str], seeds: Sequence[int], rows: Mapping[Key, Row], usual_tasks: int
) -> Verdict:
    """The verdict on these submissions. A seed for which no run was scored has as many tasks as the others, or
    `usual_tasks` where no run was scored at all. ConfigError if runs of a seed had different tasks."""
    known = {seed: count_tasks([rows[name, seed] for name in names]) for seed in seeds}
    usual = max(filter(None, known.values()), default=usual_tasks)
    counts = {seed: usual if count is None else count for seed, count in known.items()}
    scores = {name: [per_task(rows[name, seed], counts[seed]) for seed in seeds] for name in names}
    pooled = {name: np.concatenate(parts) for name, parts in scores.items()}
    means = np.array([pooled[name].mean() for name in names]).round(9)
    ranks = dict(zip(names, rankdata(-means, method="min").astype(int).tolist(), strict=True))
    order = sorted(names, key=lambda name: (ranks[name], name))
    standings = tuple(
        stand(name, ranks[name], scores[name], pooled[order[0]], [rows[name, seed] for seed in seeds])
        for name in order
    )
    machines = sorted({rows[name, seed].machine for name in names for seed in seeds} - {""})
    return Verdict(
        dataset=identity.dataset,
        options=identity.options,
        seeds=tuple(seeds),
        machines=tuple(machines),
        standings=standings,
    )


def count_tasks(rows: Sequence[Row]) -> int | None:
    """The number of tasks of a seed; None where no run was scored. ConfigError if runs had different tasks."""
    scored = [row for row in rows if row.status == "ok"]
    kinds = Counter((row.drawn, len(row.accuracies)) for row in scored)
    if len(kinds) > 1:
        common = kinds.most_common(1)[0][0]
        other = next(row for row in scored if (row.drawn, len(row.accuracies)) != common)
        raise ConfigError(
            f"{other.submission}, seed {other.seed}: its tasks were not those of the others, so the dataset has "
            "changed in between; judge again with --overwrite"
        )
    return next(iter(kinds))[1] if kinds else None


def per_task(row: Row, tasks: int) -> Scores:
    """Normalised accuracy of every task, in per cent, float64 [tasks]: all chance if the run failed."""
    return 100 * np.array(row.accuracies, dtype=np.float64) if row.status == "ok" else np.zeros(tasks)


def stand(name: str, rank: int, scores: Sequence[Scores], best: Scores, rows: Sequence[Row]) -> Standing:
    """Where a submission stands: `scores` of each seed, `best` of the best submission over all seeds."""
    own, seed_means = np.concatenate(scores), [float(each.mean()) for each in scores]
    differences = own - best
    is_best = rank == 1 and not differences.any()
    width = interval95(differences) if len(differences) > 1 else math.nan
    failed = [FailedRun(seed=row.seed, reason=row.reason) for row in rows if row.status == "failed"]
    lost = [
        len(part) if row.status == "failed" else row.unanswered
        for part, row in zip(scores, rows, strict=True)
    ]
    return Standing(
        submission=name,
        rank=rank,
        accuracy=float(own.mean()),
        ci95=interval95(own),
        seed_means=tuple(seed_means),
        seed_sd=float(np.std(seed_means, ddof=1)) if len(seed_means) > 1 else None,
        gap=None if is_best else float(differences.mean()),
        gap_ci95=None if is_best or math.isnan(width) else width,
        tasks=len(own),
        unanswered=sum(lost),
        wall_s=float(np.mean([row.wall_s for row in rows])),
        longest_s=max(row.wall_s for row in rows),
        failed=tuple(failed),
    )
