"""The trials of a search: what they may cost, what they found, and the tuned backbone that joins them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from autometa.backbones import STAGES, View
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.core.settings import Settings
from autometa.data.images import Rows
from autometa.evaluation.accuracy import paired_gain
from autometa.evaluation.mixing import calibrate
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import HEADS
from autometa.learners.trained import TrainedCosts
from autometa.planning.forecast import Forecast
from autometa.planning.stage_log import StageLog
from autometa.search.backbone_tuning import BackboneTuner
from autometa.search.best_outcomes import BestOutcomes, without_scores
from autometa.search.candidates import (
    Candidate,
    FamilyCandidate,
    HeadCandidate,
    Outcome,
    Pruned,
    measure_safely,
)
from autometa.search.families import find_family
from autometa.search.family_trials import FamilyTrials
from autometa.search.ranking import WORSE, LogProbabilities
from autometa.search.search import Search

QUICK_HEADS, QUICK_TRANSFORM = ("centroid", "ot_map"), "root_l2"
"""What views are ranked with."""
TRIAL_BYTES = 350 * 2**20
"""What a trial with its metric may take."""
FIRST_LOOK, PRUNE_ERRORS = 30, 2.0
"""Episodes after which a candidate is dropped if it is behind the best one of the same pass by so many paired
standard errors."""
MOST_TUNED = 3
"""Backbones that are tuned, one after the other, while there is time."""


@dataclass
class Trials:
    """Candidates measured on a validation set while the time allows it, and meta-test with the best of them besides.
    `announce` gets every outcome; `first` is the view of the bootstrap."""

    validation_set: ValidationSet
    first: View
    forecast: Forecast
    announce: Callable[[Outcome], None]
    report: Callable[[str], None]
    settings: Settings
    stages: StageLog
    dataset_of_class: Rows

    def __post_init__(self) -> None:
        most_reserved_s = self.forecast.policy.reserved_share * self.forecast.limits.run.left_s()
        self.best_outcomes = BestOutcomes(lambda candidates: self.meta_test_s(candidates) <= most_reserved_s)
        self._fresh: dict[Hashable, tuple[torch.Tensor, ...]] = {}
        self.tuner = BackboneTuner(self.validation_set, self.forecast, self.report, self.settings.tune_steps)
        self.families = FamilyTrials(self.validation_set, self.dataset_of_class, self.forecast, self.report)
        self._first_look = ValidationEpisodes(self.validation_set.episodes.episodes[:FIRST_LOOK])

    def run(self, search: Search, search_s: float) -> Iterator[None]:
        """Explore, tune, train, refine; stops between these, so that what `best_outcomes` have so far can be kept."""
        later_s = self.forecast.policy.later_s(search_s)
        search.explore(lambda: self.spare_s() > later_s and self.may_go_on())
        for best in self._to_tune():
            yield
            within_s = self.forecast.policy.tuning_s(self.spare_s() - self.tuner.embed_s(best))
            with self.stages.timed("tune", self.tuner.predicted_s(within_s)):
                tuned = self.tuner.tune(best, within_s)
            search.widen([each for view in tuned for each in self.layered(view)], self.may_go_on)
        yield
        with self.stages.timed("families"):
            self._try_families(search)
        yield
        search.refine(self.may_go_on, self.settings.max_trials, self.is_cheap)

    def layered(self, view: View) -> list[View]:
        """The view, and the same pass with more layers, where the network has them."""
        has = self.forecast.shelf(view.backbone, view.variant).widths
        return [view, replace(view, layers=STAGES)] if has.keys() >= set(STAGES) else [view]

    def cost(self, view: View) -> float:
        """Share of the time left that a view takes, on the validation set and in meta-test."""
        images = len(self.validation_set.keys) + self.forecast.test.embedded_images
        left_s = max(self.forecast.limits.run.left_s(), 1.0)
        return self._embed_s(view, images) / left_s

    def quick_answer(self, view: View, small_set: ValidationSet) -> LogProbabilities:
        """Calibrated log-probabilities on a few episodes of the better of two heads, on the last layer or several.
        BudgetExhausted where all fail, or there is too little time or memory."""

        def measure(candidate: HeadCandidate) -> Answer:
            features = self.features(candidate.view, small_set)
            return small_set.answer(candidate.view, features, candidate.head, candidate.params)

        found = [
            measure_safely(
                measure,
                HeadCandidate(each, head, {"transform": QUICK_TRANSFORM, **HEADS[head].first_params()}),
            )
            for each in self.layered(view)
            for head in QUICK_HEADS
        ]
        best = max(found, key=lambda outcome: outcome.score)
        if best.answer is None:
            raise BudgetExhausted(best.note)
        return calibrate(best.answer, small_set.episodes)[1]

    def attempt(self, candidate: Candidate) -> Outcome:
        """Measure a candidate; what goes wrong is an outcome too. Only `best_outcomes` keeps what it answered."""
        outcome = measure_safely(self._measure, candidate)
        if outcome.answer is not None:
            self.best_outcomes.add(outcome)
            self.forecast.members = len(self.reserved)
        self.announce(outcome)
        return without_scores(outcome)

    def may_go_on(self) -> bool:
        """Whether there is time and memory for another trial, and then for meta-test with the best so far."""
        trial_s = self.forecast.policy.trial_s
        return self.fits(self.reserved, spare_s=trial_s) and self.forecast.limits.memory.fits(TRIAL_BYTES)

    def is_cheap(self, candidate: Candidate) -> bool:
        """Whether the validation set is embedded in the view of a head, or would be in a small part of the time left;
        of a family, whether there is time for another."""
        if isinstance(candidate, FamilyCandidate):
            return self.families.within_s(self.spare_s()) > 0
        missing = self.forecast.store.missing(candidate.view, self.validation_set.keys)
        spare_s = self.forecast.policy.cheap_share * self.spare_s([*self.reserved, candidate])
        return self._embed_s(candidate.view, missing) <= spare_s

    def fits(self, candidates: Sequence[Candidate], *, spare_s: float = 0.0) -> bool:
        """Whether meta-test with these candidates still fits after finishing, with `spare_s` to spare."""
        views, learners = self._costs(candidates)
        return self.forecast.fits(views, learners=learners, spare_s=spare_s)

    def meta_test_s(self, candidates: Sequence[Candidate]) -> float:
        """Predicted seconds of meta-test with these candidates."""
        return self.forecast.meta_test_s(*self._costs(candidates))

    def spare_s(self, candidates: Sequence[Candidate] | None = None) -> float:
        """Seconds that can be spent now so that finishing and meta-test with these candidates, or with what is
        reserved, still fit."""
        return self.forecast.spare_s(*self._costs(self.reserved if candidates is None else candidates))

    def _costs(self, candidates: Sequence[Candidate]) -> tuple[list[View], list[TrainedCosts]]:
        """Views of the heads, and costs of the trained learners, of which meta-test consists."""
        views = [one.view for one in candidates if isinstance(one, HeadCandidate)]
        return views, [self.families.costs(one) for one in candidates if isinstance(one, FamilyCandidate)]

    def _embed_s(self, view: View, images: float) -> float:
        """Seconds to allow for embedding so many images in a view."""
        return self.forecast.policy.slowdown * images * self.forecast.image_s(view)

    @property
    def reserved(self) -> list[Candidate]:
        """What has its place in the plan: the best ensemble so far, as far as it is affordable, or a head on the view
        of the bootstrap."""
        return self.best_outcomes.reserved or [HeadCandidate(self.first, "centroid", {})]

    def features(self, view: View, validation_set: ValidationSet | None = None) -> torch.Tensor:
        """Features of all images of the bench, or of another one; BudgetExhausted where they do not fit in the
        time left, which does not include the seconds that finishing takes."""
        forecast, store, validation_set = (
            self.forecast,
            self.forecast.store,
            validation_set or self.validation_set,
        )
        missing = store.missing(view, validation_set.keys)
        embed_s = self._embed_s(view, missing)
        if missing and not (
            forecast.fits([view], {view: missing}) and self.fits(self.reserved, spare_s=embed_s)
        ):
            raise BudgetExhausted(f"{missing} images with {view} do not fit in the time left")
        train = forecast.limits.train
        budget = TimeBudget(train.deadline - forecast.finish_s, train.clock)
        return store.embed(view, validation_set.images, validation_set.keys, budget)

    def fresh_s(self, candidate: Candidate) -> float:
        """Predicted seconds of `fresh_scores`."""
        if candidate.identity in self._fresh:
            return 0.0
        if isinstance(candidate, FamilyCandidate):
            return self.families.answer_s(candidate)
        return self.forecast.answer_s

    def fresh_scores(self, candidate: Candidate) -> tuple[torch.Tensor, ...]:
        """Scores [b, q, n] per batch of the bench's fresh episodes, computed once. BudgetExhausted where a trained
        learner takes much longer than it did on the others."""
        if candidate.identity not in self._fresh:
            self._fresh[candidate.identity] = self._scores_on_fresh(candidate)
        return self._fresh[candidate.identity]

    def _scores_on_fresh(self, candidate: Candidate) -> tuple[torch.Tensor, ...]:
        if isinstance(candidate, FamilyCandidate):
            return self.families.fresh_scores(candidate, self.validation_set.fresh)
        view, fresh = candidate.view, self.validation_set.fresh
        return self.validation_set.answer(
            view, self.features(view), candidate.head, candidate.params, fresh
        ).scores

    def _try_families(self, search: Search) -> None:
        """Families on the best backbone, as long as there is time for one."""
        best = next((one for one in self.reserved if isinstance(one, HeadCandidate)), None)
        if best is None or not self.forecast.policy.family_s(self.spare_s()):
            return
        families = self.families.candidates(best.view, self.settings.families)
        if any(map(self.is_cheap, families)):
            search.join([(one, find_family(one.family)) for one in families], self.is_cheap)

    def _measure(self, candidate: Candidate) -> Answer:
        if isinstance(candidate, FamilyCandidate):
            within_s = self.families.within_s(self.spare_s())
            return self.families.measure(candidate, within_s, self._look_at_family)
        view = candidate.view
        features = self.features(view)
        if not self.forecast.fits([view]):
            raise BudgetExhausted(f"meta-test with {view} does not fit in the time left")
        if best := self.best_outcomes.best_of(candidate.source):
            self._look(candidate, features, best)
        return self.validation_set.answer(view, features, candidate.head, candidate.params)

    def _look(self, candidate: HeadCandidate, features: torch.Tensor, best: Outcome) -> None:
        """Pruned where a candidate is far behind the best one of the same pass on the first few episodes; one that
        is alone on its view may still be of use in an ensemble."""
        look = self._first_look
        _prune_if_far_behind(
            self.validation_set.answer(candidate.view, features, candidate.head, candidate.params, look),
            best,
            0.0,
        )

    def _look_at_family(self, answers: Callable[[ValidationEpisodes], Answer]) -> None:
        """Pruned where a trained learner is so far behind the best of all on the first few episodes that it would not
        be asked to join."""
        if ranked := self.best_outcomes.ranked:
            _prune_if_far_behind(answers(self._first_look), ranked[0], WORSE)

    def _to_tune(self) -> list[View]:
        """The best view of every backbone that the best ensemble has, then of others that are nearly as good."""
        ranked = self.best_outcomes.ranked
        near = [one.candidate for one in ranked if one.score >= ranked[0].score - WORSE / 2]
        best: dict[str, View] = {}
        for one in [*self.reserved, *near]:
            if isinstance(one, HeadCandidate):
                best.setdefault(one.view.backbone, one.view)
        return list(best.values())[:MOST_TUNED]


def _prune_if_far_behind(answer: Answer, best: Outcome, behind: float) -> None:
    """Pruned where an answer to the first few episodes is surely more than `behind` the best one's."""
    assert best.answer is not None
    gain, error = paired_gain(answer.accuracies, best.answer.accuracies[: len(answer.accuracies)])
    if gain + PRUNE_ERRORS * error < -behind:
        behind_by = f"{100 * gain:+.1f} ± {196 * error:.1f} points from the best"
        raise Pruned(answer.mean, f"{behind_by} on {len(answer.accuracies)} episodes")
