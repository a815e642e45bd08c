"""The search of a portfolio's refinement by Optuna, and how much of what it finds to believe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autometa.heads import Params
from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.search.study import open_study
from autometa.search.weighing import fold_error, shrinkage_of, without_fold

BOUNDS = {
    "sharpness": (6.0, 40.0),
    "step": (0.2, 0.8),
    "zca_shrinkage": (0.02, 0.5),
    "adapt_rate": (0.005, 0.05),
}
LEAST_TRIALS = 6
"""Fewer are not worth beginning."""
PATIENCE = 24
"""The search ends after so many trials without a better one: what folds tell apart is found by then."""


@dataclass(frozen=True)
class Refined:
    """A refinement between the default and the best of `trials`, the `gain` that other folds than those that chose it
    confirm, with its standard error `error`, and the share of the way from the default that this is worth."""

    refinement: Refinement
    trials: int
    gain: float = 0.0
    error: float = math.inf
    share: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.trials} trials of refinements: {100 * self.gain:+.1f} ± {100 * self.error:.1f} points on other "
            f"folds, {100 * self.share:.0f} % of the way is gone"
        )


def search_refinement(
    measure: Callable[[Refinement], Sequence[float]],
    seed: int,
    goes_on: Callable[[], bool],
    most_trials: int,
) -> Refined:
    """Try refinements of a portfolio while `goes_on()` and better ones are found; `measure` gives the accuracy with
    one in each fold. Parameters are moved from their defaults towards the best ones, by the share of the gain that is
    believed: the best on all folds but one is asked about that one. Without Optuna, none is tried."""
    study = open_study(BOUNDS, seed)
    if study is None:
        return Refined(DEFAULT_REFINEMENT, 0)
    tried: list[Refinement] = []
    measured: list[Sequence[float]] = []
    proposal: Params | None = {name: getattr(DEFAULT_REFINEMENT, name) for name in BOUNDS}
    while len(tried) < most_trials and (not tried or (_improves(measured) and goes_on())):
        trial = study.ask(proposal)
        refinement = Refinement(**trial.params)
        measured.append(measure(refinement))
        tried.append(refinement)
        study.tell(trial, float(np.mean(measured[-1])))
        proposal = None
    return believe(tried, np.array(measured))


def believe(tried: Sequence[Refinement], accuracies: np.ndarray) -> Refined:
    """How far to go from the first of some refinements, the default, to the best of them, given their accuracies
    [refinements, folds]."""
    if len(tried) < LEAST_TRIALS:
        return Refined(tried[0], len(tried))
    gains = []
    for fold in range(accuracies.shape[1]):
        chosen = int(without_fold(accuracies, fold).mean(1).argmax())
        gains.append(float(accuracies[chosen, fold] - accuracies[0, fold]))
    gain, error = float(np.mean(gains)), fold_error(gains)
    share = shrinkage_of(gain**2, error**2) if gain > 0 else 0.0
    best = tried[int(accuracies.mean(1).argmax())]
    moved = {name: _between(getattr(tried[0], name), getattr(best, name), share) for name in BOUNDS}
    return Refined(Refinement(**moved), len(tried), gain, error, share)


def _improves(measured: Sequence[Sequence[float]]) -> bool:
    """Whether one of the last trials was the best."""
    means = np.mean(measured, axis=1)
    return bool(len(means) - 1 - means.argmax() < PATIENCE)


def _between(start: float, end: float, share: float) -> float:
    return float(math.exp((1 - share) * math.log(start) + share * math.log(end)))
