"""Trials of trained learners beside heads: trained on the classes to fit on, asked the same paired episodes.

What such a learner costs in meta-test is measured in training.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from autometa.backbones import View
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted
from autometa.core.time_policy import POLICY
from autometa.data.images import Rows
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.evaluation.validation_set import ValidationSet
from autometa.learners.prepared import PreparedImages
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.model.trained_ensemble import TrainedMember
from autometa.planning.forecast import Forecast
from autometa.search.backbone_tuning import TUNED_PX
from autometa.search.candidates import FamilyCandidate
from autometa.search.families import find_family
from autometa.search.family_training import TrainingSet, answer_episodes, train_family

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
    """Families on one validation set; `dataset_of_class` of the pool that it comes from."""

    validation_set: ValidationSet
    dataset_of_class: Rows
    forecast: Forecast
    report: Callable[[str], None]
    _learned: dict[Hashable, TrainedCandidate] = field(default_factory=dict, init=False)

    def candidates(self, best: View, names: Sequence[str]) -> list[FamilyCandidate]:
        """Families on the backbone of a view, their options still open."""
        px = self.forecast.shelf(best.backbone).input_px(min(best.px, TUNED_PX))
        return [FamilyCandidate(name, best.backbone, px) for name in names]

    def within_s(self, spare_s: float) -> float:
        """Seconds that the next family may take; 0 where they would be too few."""
        return self.forecast.policy.family_s(spare_s)

    def measure(self, candidate: FamilyCandidate, within_s: float, look: Look) -> Answer:
        """Train the family of a candidate and ask it the validation episodes; of several options the best are kept.
        BudgetExhausted where that does not fit, or meta-test with it; what the first `look` at its answers raises;
        errors of the training as they come."""
        self.forecast.make_room()
        if not self.forecast.limits.memory.fits(FAMILY_BYTES):
            raise BudgetExhausted(f"too little memory is left to train {candidate.family}")
        train, policy = self.forecast.limits.train, self.forecast.policy
        budget = TimeBudget(train.clock() + within_s, train.clock)
        answering_share = 1 - policy.family_train_share
        recipe = find_family(candidate.family).recipe(
            candidate.backbone, candidate.px, self.forecast.test.episodes, candidate.options
        )
        learner = train_family(
            recipe,
            self._training_set,
            budget.share(policy.family_train_share),
            fits=lambda costs: (
                self.forecast.fits([], learners=[costs])
                and self._answering_s(costs) <= answering_share * within_s
            ),
            report=self.report,
        )
        look(lambda episodes: answer_episodes(learner, self._held_out, episodes, budget)[0])
        elapsed = stopwatch()
        answer, costs = answer_episodes(learner, self._held_out, self.validation_set.episodes, budget)
        if not self.forecast.fits([], learners=[costs]):
            raise BudgetExhausted(f"meta-test with {candidate.family} does not fit in the time left")
        known = self._learned.get(candidate.source)
        if known is None or known.accuracy < answer.mean:
            self._learned[candidate.source] = TrainedCandidate(answer.mean, learner, costs, elapsed())
        return answer

    def costs(self, candidate: FamilyCandidate) -> TrainedCosts:
        """What the learner of a candidate costs in meta-test."""
        return self._learned[candidate.source].costs

    def answer_s(self, candidate: FamilyCandidate) -> float:
        """Seconds that the learner of a candidate took to answer the episodes for selection."""
        return self._learned[candidate.source].answer_s

    def fresh_scores(
        self, candidate: FamilyCandidate, episodes: ValidationEpisodes
    ) -> tuple[torch.Tensor, ...]:
        """Scores [b, q, n] per batch of other episodes of the validation set, as many as those for selection.
        BudgetExhausted where that takes much longer than it did for these."""
        learned, forecast = self._learned[candidate.source], self.forecast
        clock = forecast.limits.train.clock
        budget = TimeBudget(clock() + forecast.policy.family_late * learned.answer_s, clock)
        return answer_episodes(learned.learner, self._held_out, episodes, budget)[0].scores

    def member(self, candidate: FamilyCandidate, temperature: float, weight: float) -> TrainedMember:
        """The learner of a candidate as a member of an ensemble."""
        learned = self._learned[candidate.source]
        return TrainedMember(candidate.family, learned.learner, weight, temperature, learned.costs)

    def _answering_s(self, costs: TrainedCosts) -> float:
        """Predicted seconds until a learner of such costs has answered the episodes for selection, some at a time."""
        return (
            POLICY.slowdown
            * len(self.validation_set.episodes.episodes)
            * costs.task_s
            / torch.get_num_threads()
        )

    @cached_property
    def _training_set(self) -> TrainingSet:
        validation_set, device = self.validation_set, self.forecast.shelf.device
        images = PreparedImages(validation_set.images[validation_set.size :], self._storage)
        return TrainingSet(
            images,
            validation_set.fit_labels.numpy(),
            self.dataset_of_class,
            self.forecast.test.episodes,
            device,
        )

    @cached_property
    def _held_out(self) -> PreparedImages:
        return PreparedImages(self.validation_set.images[: self.validation_set.size], self._storage)

    @property
    def _storage(self) -> Storage:
        return Storage(STORAGE_SHARE * self.forecast.limits.memory.left_bytes())
