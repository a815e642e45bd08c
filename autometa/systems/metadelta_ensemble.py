"""The ensemble of MetaDelta: how its workers answer together, or which one answers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from autometa.backbones import View
from autometa.evaluation.mixing import fit_temperature, log_probabilities
from autometa.evaluation.stacking import STACKINGS, Stacking, fit_mean
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.model.trained_ensemble import TrainedEnsemble, TrainedMember

LEAST_WEIGHT = 0.05
"""Weight of a member below which it is not worth its time in meta-test."""
UNANSWERED = Answer((), np.zeros(0))
ALONE = Stacking(rule="mean", numbers=((1.0,),))
"""Of a single worker."""


@dataclass(frozen=True)
class Worker:
    """A learner to be trained on a view, what it costs, and, once trained, its answers on the episodes that
    ensemblers are fitted on and on those that they are chosen on."""

    view: View
    learner: TrainedLearner
    costs: TrainedCosts
    answer: Answer = UNANSWERED
    chosen_on: Answer = UNANSWERED


@dataclass(frozen=True)
class Episodes:
    """Validation episodes of the same classes: `fitting`, for training, temperatures and ensemblers, and `choosing`,
    to choose among ensemblers."""

    fitting: ValidationEpisodes
    choosing: ValidationEpisodes


@dataclass(frozen=True)
class Choice:
    """Workers by their places, how they answer together, and what that is on the episodes to choose on."""

    places: tuple[int, ...]
    stacking: Stacking
    answer: Answer


@dataclass(frozen=True)
class Ensembler:
    """Workers that are trained, and the episodes that they answered."""

    done: Sequence[Worker]
    episodes: Episodes

    @cached_property
    def temperatures(self) -> list[float]:
        """The temperature of each worker."""
        return [fit_temperature(worker.answer, self.episodes.fitting) for worker in self.done]

    def choose(self, fits: Callable[[list[Worker]], bool]) -> tuple[TrainedEnsemble, str]:
        """The ensembler that is most accurate on the episodes to choose on, or the best single worker where none is
        better (Chen et al. 2021), without a stage in its record; and a line for people. Meta-test must have time for
        the members (`fits`), and each must have a weight that is worth its time."""
        alone = [self._measure((place,), ALONE) for place in range(len(self.done))]
        affordable = [one for one in alone if fits([self.done[one.places[0]]])]
        single = max(affordable or alone, key=lambda one: one.answer.mean)
        together = self._measure_rules(fits) if len(self.done) > 1 else []
        chosen = max([single, *together], key=lambda one: one.answer.mean)  # the first where they are equal
        told = [f"{one.stacking.rule} {one.answer.percent()}" for one in together]
        told.append(f"{self.done[single.places[0]].view} alone {single.answer.percent()}")
        names = ", ".join(str(self.done[place].view) for place in chosen.places)
        how = f"by {chosen.stacking.rule}" if len(chosen.places) > 1 else "alone"
        return self._build(chosen), f"ensemble: {names} {how}, of {'; '.join(told)}"

    def _measure_rules(self, fits: Callable[[list[Worker]], bool]) -> list[Choice]:
        """Each rule of several workers; none where only one is worth its time."""
        kept = self._worth_their_time(fits)
        if len(kept) < 2:
            return []
        members = self._calibrated(kept)
        return [self._measure(kept, fit(members, self.episodes.fitting)) for fit in STACKINGS.values()]

    def _worth_their_time(self, fits: Callable[[list[Worker]], bool]) -> tuple[int, ...]:
        """Places of workers by their weights in a mean of all, the heaviest first."""
        every = range(len(self.done))
        weights = [weight for (weight,) in fit_mean(self._calibrated(every), self.episodes.fitting).numbers]
        first, *others = sorted(every, key=lambda place: -weights[place])
        kept = [first]
        for place in others:
            if weights[place] >= LEAST_WEIGHT and fits([self.done[p] for p in (*kept, place)]):
                kept.append(place)
        return tuple(kept)

    def _calibrated(self, places: Iterable[int], *, choosing: bool = False) -> list[list[torch.Tensor]]:
        """Log-probabilities of workers on the episodes to fit on, or to choose on."""
        found = []
        for place in places:
            worker, temperature = self.done[place], self.temperatures[place]
            answer = worker.chosen_on if choosing else worker.answer
            found.append([log_probabilities(scores.double(), temperature) for scores in answer.scores])
        return found

    def _measure(self, places: tuple[int, ...], stacking: Stacking) -> Choice:
        answers = stacking.of_batches(self._calibrated(places, choosing=True))
        return Choice(places, stacking, self.episodes.choosing.measure(answers))

    def _build(self, chosen: Choice) -> TrainedEnsemble:
        """The ensemble of a choice, its weights in the members where they are those of a mean."""
        is_mean = chosen.stacking.rule == "mean"
        weights = [numbers[0] if is_mean else 1.0 for numbers in chosen.stacking.numbers]
        members = tuple(
            TrainedMember(str(self.done[p].view), self.done[p].learner, weight, self.temperatures[p])
            for p, weight in zip(chosen.places, weights, strict=True)
        )
        return TrainedEnsemble(members, chosen.answer.figures(), None if is_mean else chosen.stacking)
