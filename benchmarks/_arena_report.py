"""Evaluating the results of the arena: estimates, ranks, wins and losses, as rows and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from _learner_report import Row, row
from scipy.stats import rankdata

from autometa.evaluation.accuracy import Scores, interval95

CONTROLLER = "autometa"
"""The bundle that the `controller` rows are about."""


@dataclass(frozen=True)
class Result:
    """The result of one unit.

    `accuracies`: normalised accuracy of every task, empty if the run was not scored; `drawn`: a fingerprint of the
    tasks; `overrun`: the run took longer than its budget, or the submission had to be stopped; `first_learner_s`:
    seconds from the start of the run to the first saved learner, if the bundle reports it.
    """

    bundle: str
    dataset: str
    budget_s: float
    seed: int
    settings: str
    exit_status: int
    accuracies: tuple[float, ...]
    drawn: str
    wall_s: float
    overrun: bool
    unanswered: int
    first_learner_s: float | None
    reason: str
    machine: str

    @property
    def failed(self) -> bool:
        """Whether the run failed."""
        return self.exit_status != 0 or not self.accuracies

    @property
    def mean(self) -> float:
        """Mean normalised accuracy, as a fraction."""
        return float(np.mean(self.accuracies))

    def __str__(self) -> str:
        return f"{self.bundle} on {self.dataset}, {self.budget_s:g} s, seed {self.seed}"


@dataclass(frozen=True)
class Estimate:
    """Accuracies of a bundle over tasks, in %: mean, half-width of its 95 % interval, mean of the worst seed."""

    mean: float
    ci95: float
    worst_seed: float


@dataclass(frozen=True)
class Comparison:
    """Paired differences in % points over all tasks, and the datasets with an interval above, around and
    below zero."""

    gain: float
    ci95: float
    better: tuple[str, ...]
    same: tuple[str, ...]
    worse: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """The scored runs of one budget by (dataset, seed) and bundle."""

    budget_s: float
    cells: Mapping[tuple[str, int], Mapping[str, Result]]

    @property
    def bundles(self) -> tuple[str, ...]:
        """All bundles, in alphabetical order."""
        return tuple(sorted({name for cell in self.cells.values() for name in cell}))

    @property
    def datasets(self) -> tuple[str, ...]:
        """All datasets, in alphabetical order."""
        return tuple(sorted({dataset for dataset, _ in self.cells}))

    def common(self) -> Round:
        """Only the cells that every bundle has."""
        kept = {key: cell for key, cell in self.cells.items() if len(cell) == len(self.bundles)}
        return Round(self.budget_s, kept)

    def of(self, *bundles: str, dataset: str | None = None) -> list[tuple[Result, ...]]:
        """The results of these bundles, side by side, for the cells in which all were scored."""
        return [
            tuple(cell[name] for name in bundles)
            for (where, _), cell in sorted(self.cells.items())
            if dataset in (None, where) and all(name in cell for name in bundles)
        ]


def rounds(results: Iterable[Result]) -> list[Round]:
    """The scored results by budget; ValueError if bundles had different tasks."""
    found: dict[float, dict[tuple[str, int], dict[str, Result]]] = {}
    drawn: dict[tuple[str, int], Result] = {}
    for result in results:
        if not result.accuracies:
            continue
        cell = result.dataset, result.seed
        first = drawn.setdefault(cell, result)
        if (first.drawn, len(first.accuracies)) != (result.drawn, len(result.accuracies)):
            raise ValueError(f"{first} and {result} had different tasks: did the dataset change in between?")
        found.setdefault(result.budget_s, {}).setdefault(cell, {})[result.bundle] = result
    return [Round(budget_s, found[budget_s]) for budget_s in sorted(found)]


def interval(scores: Scores) -> float:
    """Half-width of the 95 % interval of a mean difference; infinite for a single one, which says nothing."""
    return interval95(scores) if len(scores) > 1 else math.inf


def estimate(results: Sequence[Result]) -> Estimate:
    """Mean over the tasks of all results of a bundle, and the lowest mean of a seed."""
    scores = 100 * np.concatenate([r.accuracies for r in results])
    ordered = sorted(results, key=lambda r: r.seed)
    seeds = [np.concatenate([r.accuracies for r in of]) for _, of in groupby(ordered, lambda r: r.seed)]
    return Estimate(float(scores.mean()), interval95(scores), 100 * min(float(s.mean()) for s in seeds))


def average_ranks(of: Round) -> dict[str, float]:
    """Average rank of every bundle over the cells that all have, 1 is best, ties shared; empty if there is none."""
    bundles, cells = of.bundles, of.common().cells.values()
    if not cells:
        return {}
    means = np.array([[cell[name].mean for name in bundles] for cell in cells]).round(12)
    return dict(zip(bundles, rankdata(-means, axis=1).mean(axis=0).tolist(), strict=True))


def differences(pairs: Sequence[tuple[Result, ...]]) -> Scores:
    """First minus second on every task, in % points."""
    return 100 * np.concatenate([np.subtract(a.accuracies, b.accuracies) for a, b in pairs])


def compare(of: Round, ours: str, theirs: str) -> Comparison | None:
    """One bundle against another over the cells that both have; None if there is none."""
    if not (pairs := of.of(ours, theirs)):
        return None
    verdicts: dict[str, list[str]] = {"better": [], "same": [], "worse": []}
    for dataset in sorted({a.dataset for a, _ in pairs}):
        gains = differences([pair for pair in pairs if pair[0].dataset == dataset])
        low, high = gains.mean() - interval(gains), gains.mean() + interval(gains)
        verdicts["better" if low > 0 else "worse" if high < 0 else "same"].append(dataset)
    gains = differences(pairs)
    named = {name: tuple(datasets) for name, datasets in verdicts.items()}
    return Comparison(float(gains.mean()), interval(gains), **named)


def rows(results: Sequence[Result]) -> list[Row]:
    """Every number of the report; the reference of a dataset's row is the best other bundle there."""
    made = []
    for of in rounds(results):
        where = f"arena/{of.budget_s:g}"
        for dataset in of.datasets:
            runs = {name: [r for (r,) in of.of(name, dataset=dataset)] for name in of.bundles}
            found = {name: estimate(mine) for name, mine in runs.items() if mine}
            for name, own in found.items():
                others = [other.mean for rival, other in found.items() if rival != name]
                more: dict[str, Any] = {"ci95": own.ci95, "worst_seed": own.worst_seed}
                more["wall_s"] = float(np.mean([r.wall_s for r in runs[name]]))
                best = max(others, default=None)
                made.append(row(f"{where}/{name}/{dataset}", own.mean, "%", best, **more))
        cells = len(of.common().cells)
        made += [
            row(f"{where}/{name}/rank", rank, "rank", pairs=cells) for name, rank in average_ranks(of).items()
        ]
    return made + controller_rows(results)


def controller_rows(results: Iterable[Result]) -> list[Row]:
    """The latest first learner, and the number of overruns, over all runs of autometa."""
    runs = [r for r in results if r.bundle == CONTROLLER]
    first = [r.first_learner_s for r in runs if r.first_learner_s is not None]
    made = [row("controller/first_learner_s", max(first), "s", runs=len(first))] if first else []
    if runs:
        made.append(row("controller/overruns", sum(r.overrun for r in runs), "runs", runs=len(runs)))
    return made


def markdown(results: Sequence[Result], ours: str) -> str:
    """Tables: a round for every budget, `ours` against the others, then what failed."""
    lines = []
    for of in rounds(results):
        lines += [*round_table(of, results), "", *rival_table(of, ours)]
    lines += [f"- Failed: {r}: {r.reason}" for r in results if r.failed]
    machines = ", ".join(sorted({r.machine for r in results}))
    settings = ", ".join(sorted({f"`{r.settings}`" for r in results}))
    return "\n".join([*lines, "", f"Options of the runs: {settings}. Machine: {machines}."]) + "\n"


def round_table(of: Round, results: Sequence[Result]) -> list[str]:
    """One line per bundle, best rank first; the mean of the worst seed in brackets if there are several."""
    common, ranks = of.common(), average_ranks(of)
    datasets = " | ".join(of.datasets)
    n = len(common.cells)
    lines = [
        f"**{of.budget_s:g} s**; rank and mean over {n} of {len(of.cells)} pairs of dataset and seed",
        "",
        f"| Bundle | Rank | Mean | {datasets} | Seconds, longest | Overruns | Not answered |",
        "|---" * (6 + len(of.datasets)) + "|",
    ]
    for name in sorted(of.bundles, key=lambda name: (ranks.get(name, 0), name)):
        runs = [r for r in results if r.bundle == name and r.budget_s == of.budget_s]
        accuracies = [cell_text(common.of(name))]
        accuracies += [cell_text(of.of(name, dataset=dataset)) for dataset in of.datasets]
        rank = f"{ranks[name]:.2f}" if name in ranks else ""
        seconds = [r.wall_s for r in runs if r.accuracies]
        last = f"{np.mean(seconds):.0f}, {max(seconds):.0f} | {sum(r.overrun for r in runs)}"
        unanswered = sum(r.unanswered for r in runs)
        lines.append(f"| `{name}` | {rank} | {' | '.join(accuracies)} | {last} | {unanswered} |")
    return lines


def cell_text(runs: Sequence[tuple[Result, ...]]) -> str:
    """Mean and interval; empty without runs."""
    if not runs:
        return ""
    own = [result for (result,) in runs]
    found = estimate(own)
    worst = f" ({found.worst_seed:.1f})" if len({r.seed for r in own}) > 1 else ""
    return f"{found.mean:.1f} ± {found.ci95:.1f}{worst}"


def rival_table(of: Round, ours: str) -> list[str]:
    """`ours` against each other bundle: the difference, and on how many datasets it is better or worse."""
    rivals = {name: compare(of, ours, name) for name in of.bundles if name != ours}
    met = {name: found for name, found in rivals.items() if found is not None}
    if not met:
        return []
    lines = [f"| `{ours}` against | Difference | Better on | Not different on | Worse on |", "|---" * 5 + "|"]
    for name, found in met.items():
        worse = f"{len(found.worse)}" + (f": {', '.join(found.worse)}" if found.worse else "")
        counts = f"{len(found.better)} | {len(found.same)} | {worse}"
        lines.append(f"| `{name}` | {found.gain:+.1f} ± {found.ci95:.1f} | {counts} |")
    return [*lines, ""]
