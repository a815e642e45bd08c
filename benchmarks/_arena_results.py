"""Results of the arena and what they say: rounds of a budget, estimates, ranks, paired differences."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from scipy.stats import rankdata

from autometa.evaluation.accuracy import Scores, interval95

ASKED_TASKS = re.compile(r"--tasks-per-dataset (\d+)")
"""How many tasks the options of a run ask for, of each dataset that it is tested on."""


@dataclass(frozen=True)
class Reported:
    """What a learner says of itself, from its validation: normalised accuracy and the ends of its 95 % interval, as
    fractions."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """The result of one unit.

    `accuracies`: normalised accuracy of every task, empty if the run was not scored; `drawn`: a fingerprint of the
    tasks; `wall_s`: seconds from the start of the program to its end, from outside; `counted_s`: seconds that count
    for the budget; `overrun`: these are more than the budget, or the submission had to be stopped; `first_learner_s`:
    seconds from the start of the run to the first saved learner, if the bundle reports it; `reported`: what the
    learner says of itself, if it does; `task_sets`: the dataset of every task; `sharing`: how many runs there were at
    a time, and with how many threads; `gpu_peak_bytes`: the most GPU memory that was seen in use, where it was
    watched. Old results have no `task_sets` (all are of `dataset`), no `sharing`, and no
    `counted_s`, which is then their `wall_s`.
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
    reported: Reported | None = None
    task_sets: tuple[str, ...] = ()
    counted_s: float | None = None
    sharing: str = ""
    gpu_peak_bytes: int | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Result:
        """The result out of its JSON object; TypeError, ValueError or KeyError if that is none."""
        reported = content.get("reported")
        fields = {
            "accuracies": tuple(content["accuracies"]),
            "reported": None if reported is None else Reported(**reported),
            "task_sets": tuple(content.get("task_sets", ())),
        }
        return cls(**{**content, **fields})

    @property
    def failed(self) -> bool:
        """Whether the run failed."""
        return self.exit_status != 0 or not self.accuracies

    @property
    def mean(self) -> float:
        """Mean normalised accuracy, as a fraction."""
        return float(np.mean(self.accuracies))

    @property
    def set_of_task(self) -> tuple[str, ...]:
        """The dataset of every task."""
        return self.task_sets or (self.dataset,) * len(self.accuracies)

    @property
    def covered(self) -> bool | None:
        """Whether the mean test accuracy lies in the interval that the learner reports; None without one of them."""
        if self.reported is None or not self.accuracies:
            return None
        return self.reported.low <= self.mean <= self.reported.high

    @property
    def asked_tasks(self) -> int:
        """How many tasks its options ask for. ValueError where they do not say."""
        asked = ASKED_TASKS.search(self.settings)
        if asked is None:
            raise ValueError(
                f"{self}: settings {self.settings!r} name no --tasks-per-dataset; measure it again"
            )
        return int(asked[1]) * (self.dataset.rpartition("->")[2].count("+") + 1)

    def as_chance(self, scored: Result | None) -> Result:
        """This run, which was not scored, as one that got chance on every task: on those of a `scored` run of the
        same dataset and seed, or on as many as its options ask for."""
        if scored is None:
            tasks = self.asked_tasks
            return replace(self, accuracies=(0.0,) * tasks, unanswered=tasks)
        tasks = len(scored.accuracies)
        return replace(
            self,
            accuracies=(0.0,) * tasks,
            drawn=scored.drawn,
            task_sets=scored.task_sets,
            unanswered=tasks,
        )

    def by_set(self) -> list[Result]:
        """This run as one for each dataset that it was tested on; itself where that is a single one."""
        sets = sorted(set(self.set_of_task))
        if len(sets) < 2:
            return [self]
        parts = []
        for name in sets:
            own = [place for place, of in enumerate(self.set_of_task) if of == name]
            accuracies = tuple(self.accuracies[place] for place in own)
            dataset = f"{self.dataset}--{name}"
            parts.append(replace(self, dataset=dataset, accuracies=accuracies, task_sets=(name,) * len(own)))
        return parts

    def __str__(self) -> str:
        return f"{self.bundle} on {self.dataset}, {self.budget_s:g} s, seed {self.seed}"


@dataclass(frozen=True)
class Estimate:
    """Accuracies of a bundle over tasks, in %: mean, half-width of its 95 % interval, mean of the worst seed, and
    standard deviation of the means of seeds (None for one seed). A seed is another split of the classes, too."""

    mean: float
    ci95: float
    worst_seed: float
    seed_sd: float | None


@dataclass(frozen=True)
class Comparison:
    """Paired differences in % points, and the datasets with an interval above, around and below zero.

    `gain`: the mean over all tasks, and `ci95`, half-width of its 95 % interval. `set_gain`: the mean over `sets`
    datasets, each of which is the mean of its tasks in all seeds, and `set_ci95`, half-width of its interval over
    datasets, infinite for a single one. `seeds`: how many there are, and `seed_sd`, standard deviation of the mean
    difference of each (None for one).
    """

    gain: float
    ci95: float
    set_gain: float
    set_ci95: float
    sets: int
    seeds: int
    seed_sd: float | None
    better: tuple[str, ...]
    same: tuple[str, ...]
    worse: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """The runs of one budget by (dataset, seed) and bundle; those that were not scored got chance."""

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
        """The results of these bundles, side by side, for the cells in which all ran."""
        return [
            tuple(cell[name] for name in bundles)
            for (where, _), cell in sorted(self.cells.items())
            if dataset in (None, where) and all(name in cell for name in bundles)
        ]


def rounds(results: Sequence[Result]) -> list[Round]:
    """The results by budget; those that were not scored count as chance. ValueError if bundles had other tasks."""
    found: dict[float, dict[tuple[str, int], dict[str, Result]]] = {}
    scored: dict[tuple[str, int], Result] = {}
    for result in results:
        if not result.accuracies:
            continue
        first = scored.setdefault((result.dataset, result.seed), result)
        if (first.drawn, len(first.accuracies)) != (result.drawn, len(result.accuracies)):
            raise ValueError(f"{first} and {result} had different tasks: did the dataset change in between?")
    for result in results:
        cell = result.dataset, result.seed
        counted = result if result.accuracies else result.as_chance(scored.get(cell))
        found.setdefault(result.budget_s, {}).setdefault(cell, {})[result.bundle] = counted
    return [Round(budget_s, found[budget_s]) for budget_s in sorted(found)]


def interval(scores: Scores) -> float:
    """Half-width of the 95 % interval of a mean difference; infinite for a single one, which says nothing."""
    return interval95(scores) if len(scores) > 1 else math.inf


def estimate(results: Sequence[Result]) -> Estimate:
    """Mean over the tasks of all results of a bundle, the lowest mean of a seed, and their spread."""
    scores = 100 * np.concatenate([r.accuracies for r in results])
    seeds = seed_means([(r.seed, 100 * np.array(r.accuracies)) for r in results])
    return Estimate(float(scores.mean()), interval95(scores), min(seeds), spread(seeds))


def seed_means(of_runs: Iterable[tuple[int, Scores]]) -> list[float]:
    """The mean over all tasks of each seed, in the order of the seeds."""
    ordered = sorted(of_runs, key=lambda run: run[0])
    groups = groupby(ordered, lambda run: run[0])
    return [float(np.concatenate([scores for _, scores in runs]).mean()) for _, runs in groups]


def spread(means: Sequence[float]) -> float | None:
    """Their standard deviation; None for a single one."""
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


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
    gains, by_set = differences(pairs), set_differences(pairs)
    seeds = seed_means([(pair[0].seed, differences([pair])) for pair in pairs])
    return Comparison(
        gain=float(gains.mean()),
        ci95=interval(gains),
        set_gain=float(by_set.mean()),
        set_ci95=interval(by_set),
        sets=len(by_set),
        seeds=len(seeds),
        seed_sd=spread(seeds),
        **{name: tuple(datasets) for name, datasets in verdicts.items()},
    )


def set_differences(pairs: Sequence[tuple[Result, ...]]) -> Scores:
    """Mean of first minus second over all tasks of a dataset, in % points: float64 [datasets]."""
    gains, sets = differences(pairs), np.concatenate([a.set_of_task for a, _ in pairs])
    return np.array([gains[sets == name].mean() for name in np.unique(sets)])
