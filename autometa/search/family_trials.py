"""Trials of trained learners beside heads: trained on the classes to fit on, asked the same paired episodes.

To planning and ensembles, such a learner is a view of its own, whose costs were measured in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from autometa.backbones import TRAINED, View, untuned
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted
from autometa.core.speed import SLOWDOWN
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import Rows
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.evaluation.validation_set import ValidationSet
from autometa.learners.prepared import PreparedImages
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.model.trained_ensemble import TrainedMember
from autometa.planning.forecast import Forecast
from autometa.search.backbone_tuning import TUNED_PX
from autometa.search.candidates import Candidate
from autometa.search.families import FAMILIES, FamilySpec, find_family
from autometa.search.family_training import TrainingSet, answer_episodes, train_family

SHARE = 0.25
"""Of the time left to search, that a family may take."""
LEAST_S = 15.0
"""A family is not begun with less."""
TRAIN_SHARE = 0.6
"""Of its time, for training; the rest is for the validation episodes."""
LATE = 1.5
"""How many times as long as answering the episodes for selection took, fresh ones may take."""
FAMILY_BYTES, STORAGE_SHARE = 700 * 2**20, 0.25
"""Memory that must be there; share of it for prepared images, more of them go to the disk."""
Look = Callable[[Callable[[ValidationEpisodes], Answer]], None]
"""Is given what answers episodes, and may raise `Pruned`."""


@dataclass(frozen=True)
class TrainedCandidate:
    """A trained learner: its accuracy on the episodes for selection, its costs in meta-test, and the seconds that
    answering these episodes took."""

    accuracy: float
    learner: TrainedLearner
    costs: TrainedCosts
    answer_s: float


@dataclass
class FamilyTrials:
    """Families on one bench; `dataset_of_class` of the pool that it comes from."""

    validation_set: ValidationSet
    dataset_of_class: Rows
    forecast: Forecast
    report: Callable[[str], None]
    _learned: dict[View, TrainedCandidate] = field(default_factory=dict, init=False)

    def views(self, best: View, names: Sequence[str]) -> dict[View, FamilySpec]:
        """Families on the backbone of a view, by the views that they count as."""
        backbone = untuned(best.backbone)
        px = self.forecast.shelf(backbone).input_px(min(best.px, TUNED_PX))
        return {View(f"{backbone}{TRAINED}{name}", px): find_family(name) for name in names}

    def within_s(self, spare_s: float) -> float:
        """Seconds that the next family may take, 0 where they would be too few, or memory does not do even after
        engines have given back theirs."""
        seconds = SHARE * spare_s
        if seconds < LEAST_S:
            return 0.0
        self.forecast.make_room()
        return seconds if self.forecast.limits.memory.fits(FAMILY_BYTES) else 0.0

    def measure(self, candidate: Candidate, within_s: float, look: Look) -> Answer:
        """Train the family of a candidate and ask it the validation episodes; of several options the best are kept.
        BudgetExhausted where that does not fit, or meta-test with it; what the first `look` at its answers raises;
        errors of the training as they come."""
        train = self.forecast.limits.train
        budget = TimeBudget(train.clock() + within_s, train.clock)
        backbone, px = untuned(candidate.view.backbone), candidate.view.px
        recipe = find_family(candidate.head).recipe(backbone, px, self._form, candidate.params)
        learner = train_family(
            recipe,
            self._training_set,
            budget.share(TRAIN_SHARE),
            fits=lambda costs: (
                self._fits(candidate.view, costs) and self._answering_s(costs) <= (1 - TRAIN_SHARE) * within_s
            ),
            report=self.report,
        )
        look(lambda episodes: answer_episodes(learner, self._held_out, episodes, budget)[0])
        elapsed = stopwatch()
        answer, costs = answer_episodes(learner, self._held_out, self.validation_set.episodes, budget)
        if not self._fits(candidate.view, costs):
            raise BudgetExhausted(f"meta-test with {candidate.head} does not fit in the time left")
        known = self._learned.get(candidate.view)
        if known is None or known.accuracy < answer.mean:
            self._learned[candidate.view] = TrainedCandidate(answer.mean, learner, costs, elapsed())
            self.forecast.trained[candidate.view.backbone] = costs
        return answer

    def answer_s(self, candidate: Candidate) -> float:
        """Seconds that the learner of a candidate took to answer the episodes for selection."""
        return self._learned[candidate.view].answer_s

    def fresh_scores(self, candidate: Candidate, episodes: ValidationEpisodes) -> tuple[torch.Tensor, ...]:
        """Scores [b, q, n] per batch of other episodes of the bench, as many as those for selection. BudgetExhausted
        where that takes much longer than it did for these."""
        learned, train = self._learned[candidate.view], self.forecast.limits.train
        budget = TimeBudget(train.clock() + LATE * learned.answer_s, train.clock)
        return answer_episodes(learned.learner, self._held_out, episodes, budget)[0].scores

    def member(self, candidate: Candidate, temperature: float, weight: float) -> TrainedMember:
        """The learner of a candidate as a member of an ensemble."""
        learned = self._learned[candidate.view]
        return TrainedMember(candidate.head, learned.learner, weight, temperature, learned.costs)

    @property
    def _form(self) -> EpisodeSpec:
        return self.forecast.test.episodes

    def _answering_s(self, costs: TrainedCosts) -> float:
        """Predicted seconds until a learner of such costs has answered the episodes for selection, some at a time."""
        return SLOWDOWN * len(self.validation_set.episodes.episodes) * costs.task_s / torch.get_num_threads()

    def _fits(self, view: View, costs: TrainedCosts) -> bool:
        """Whether meta-test with a learner of these costs, beside what is reserved anyway, would fit."""
        kept = self.forecast.trained
        self.forecast.trained = kept | {view.backbone: costs}
        try:
            return self.forecast.fits([view])
        finally:
            self.forecast.trained = kept

    @cached_property
    def _training_set(self) -> TrainingSet:
        validation_set, device = self.validation_set, self.forecast.shelf.device
        images = PreparedImages(validation_set.images[validation_set.size :], self._storage)
        return TrainingSet(
            images, validation_set.fit_labels.numpy(), self.dataset_of_class, self._form, device
        )

    @cached_property
    def _held_out(self) -> PreparedImages:
        return PreparedImages(self.validation_set.images[: self.validation_set.size], self._storage)

    @property
    def _storage(self) -> Storage:
        return Storage(STORAGE_SHARE * self.forecast.limits.memory.left_bytes())


def is_family(candidate: Candidate) -> bool:
    """Whether a candidate is a trained learner, not a head."""
    return candidate.head in FAMILIES
