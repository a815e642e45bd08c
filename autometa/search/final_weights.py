"""The end of a run: weights of views and modes from the evidence, a temperature, and what accuracy to expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.data.test_spec import TestSpec
from autometa.evaluation.accuracy import calibration_error
from autometa.evaluation.estimate import Estimate, Recalls, estimate_accuracy
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE, ShotTemperature
from autometa.heads.refine import Refinement
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from autometa.search.draft import PortfolioDraft
from autometa.search.evidence import FoldAnswer, Mixture
from autometa.search.weighing import soft_weights, without_fold
from autometa.search.workbench import Workbench

MODE_SOFTNESS = 0.02
"""Of weights of modes by accuracy, see `soft_weights`."""
SAME_WEIGHT = 0.02
"""Weights that differ by less make no difference."""


@dataclass(frozen=True)
class FinalWeights:
    """Weights of views and modes, the refinement, the temperature, and the accuracy to expect with its calibration
    error (None: not measured)."""

    views: Mapping[View, float]
    modes: Mapping[str, float]
    refinement: Refinement
    temperature: ShotTemperature = IDENTITY_TEMPERATURE
    estimate: Estimate | None = None
    calibration_error: float | None = None

    @classmethod
    def equal(cls, draft: PortfolioDraft) -> FinalWeights:
        """The portfolio as it is now, with equal weights of its modes."""
        mixture = draft.mixture()
        return cls(mixture.views, mixture.modes, mixture.refinement)

    def narrowed(self, modes: Sequence[str]) -> FinalWeights:
        """The same with some of the modes only; their weights sum to 1 again."""
        kept = {name: weight for name, weight in self.modes.items() if name in modes}
        total = sum(kept.values())
        return replace(self, modes={name: weight / total for name, weight in kept.items()})

    def build(self, bench: Workbench, shelf: BackboneShelf, *, balanced: bool) -> Portfolio:
        """The portfolio with these weights, its metrics fitted to all classes; the views with the largest weights
        come first, since the last are dropped where meta-test is late."""
        views = tuple(sorted(self.views, key=lambda view: -self.views[view]))
        modes = tuple(
            WeightedMode(name=name, weight=max(weight, 1e-6)) for name, weight in self.modes.items()
        )
        record: dict[str, Any] = {"views": {str(view): round(self.views[view], 4) for view in views}}
        if self.calibration_error is not None:
            record["calibration_error"] = self.calibration_error
        return Portfolio(
            views,
            modes,
            shelf,
            bench.metrics(views, list(self.modes)),
            balanced=balanced,
            validation=record,
            temperature=self.temperature,
            weights=tuple(self.views[view] for view in views),
            refinement=self.refinement,
        )

    def describe(self) -> str:
        """For people."""
        views = ", ".join(f"{view} {100 * weight:.0f} %" for view, weight in self.views.items())
        modes = ", ".join(f"{mode} {100 * weight:.0f} %" for mode, weight in self.modes.items())
        expected = f"expected accuracy {self.estimate.percent()}; " if self.estimate else ""
        return f"{expected}views: {views}; modes: {modes}"


def choose_weights(
    draft: PortfolioDraft, weighed: Mapping[str, float], test: TestSpec, rng: np.random.Generator
) -> FinalWeights:
    """Weights of views and of the modes `weighed` from all folds. For each fold, the weights that the other folds
    give are asked about its classes, which no choice has seen then: that is the accuracy to expect."""
    bench, folds = draft.bench, range(len(draft.bench.folds))
    mixture = replace(draft.mixture(), modes=weighed)
    modes = list(mixture.modes)
    answers = draft.answer_all(mixture)
    of_modes = np.array(
        [
            [float(draft.evidence.measure(answer, _only(mode, modes)).mean()) for answer in answers]
            for mode in modes
        ]
    )
    recalls, temperatures, mixed = [], [], []
    episodes = 0
    for fold in folds:
        others = dict(zip(modes, soft_weights(without_fold(of_modes, fold), MODE_SOFTNESS), strict=True))
        mixed.append(_answer_unseen(draft, answers[fold], mixture).mix(others))
        temperatures.append(ShotTemperature.fit(mixed[-1], bench.folds[fold].episodes))
        recalls.append(Recalls.of(bench.folds[fold], bench.labels(fold), mixed[-1], episodes))
        episodes += len(bench.folds[fold].episodes.episodes)
    estimate = estimate_accuracy(Recalls.join(recalls), test.episodes, test.tasks, rng)
    errors = []
    for fold in folds:
        own = bench.folds[fold].episodes
        temperature = _mean([each for place, each in enumerate(temperatures) if place != fold])
        scores = [temperature(*pair) for pair in zip(mixed[fold], own.shots, strict=True)]
        errors.append(calibration_error(scores, own.labels))
    weights = dict(zip(modes, soft_weights(of_modes, MODE_SOFTNESS).tolist(), strict=True))
    return FinalWeights(
        mixture.views,
        _complete(weights, bench.modes),
        mixture.refinement,
        _mean(temperatures),
        estimate,
        float(np.mean(errors)),
    )


def _answer_unseen(draft: PortfolioDraft, known: FoldAnswer, mixture: Mixture) -> FoldAnswer:
    """The answer on a fold with the weights of views that the other folds give; the `known` one, with those that all
    folds give, where that makes no difference."""
    weights = draft.weights(known.fold)
    if max(abs(weights[view] - mixture.views[view]) for view in weights) < SAME_WEIGHT:
        return known
    return draft.answer(replace(mixture, views=weights), known.fold)


def _complete(weights: Mapping[str, float], modes: Sequence[str]) -> dict[str, float]:
    """Weights of all modes, summing to 1: those that were not weighed have the mean weight."""
    found = {mode: weights.get(mode, 1 / len(weights)) for mode in modes}
    return {mode: weight / sum(found.values()) for mode, weight in found.items()}


def _only(mode: str, modes: list[str]) -> dict[str, float]:
    return {name: float(name == mode) for name in modes}


def _mean(temperatures: list[ShotTemperature]) -> ShotTemperature:
    levels, slopes = zip(*((each.level, each.slope) for each in temperatures), strict=True)
    return ShotTemperature(float(np.mean(levels)), float(np.mean(slopes)))
