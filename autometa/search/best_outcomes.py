"""The best outcomes of every pass of a network: what an ensemble is made of, and the only answers kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from autometa.backbones import View
from autometa.search.candidates import Candidate, FamilyCandidate, HeadCandidate, Outcome
from autometa.search.ranking import WORSE

Fits = Callable[[Sequence[Candidate]], bool]
"""Whether meta-test with these candidates fits in some time."""
KEPT = 5
"""Outcomes of a pass whose scores are kept: a hundred candidates' scores would fill the memory. They have metrics of
their own each: with others, the mistakes are others."""
NEARLY_AS_GOOD = 0.05
"""Normalised accuracy that a member of the broad ensemble may be behind the best one of its pass. Which metric is
best on a dozen classes says little about which is on others; together they beat the one chosen."""


def without_scores(outcome: Outcome) -> Outcome:
    """The outcome with what is known of its accuracy, but not what it answered."""
    if outcome.answer is None:
        return outcome
    return replace(outcome, answer=replace(outcome.answer, scores=()))


def best_of_each_metric(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The best outcome with each metric, best first."""
    best: dict[object, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda one: -one.score):
        candidate = outcome.candidate
        metric = candidate.params["transform"] if isinstance(candidate, HeadCandidate) else None
        best.setdefault(metric, outcome)
    return list(best.values())


def broad(best_first: Sequence[Outcome], fits: Fits) -> list[Outcome]:
    """The best pass of every good network, then of tuned and untuned copies of these, as far as meta-test with these
    heads `fits`, each with the metrics that are nearly as good as its best. Mirrored images cost as much as another
    network, which is worth more."""
    least = max((outcome.score for outcome in best_first), default=0.0) - WORSE
    good = [one for one in best_first if one.score >= least and not one.view.flip]
    members: list[Outcome] = []
    for same in (_same_backbone, _same_weights):
        for outcome in good:
            if any(same(outcome.view, member.view) for member in members):
                continue
            alike = [one for one in best_first if one.view.source == outcome.view.source]
            team = best_of_each_metric(one for one in alike if one.score >= outcome.score - NEARLY_AS_GOOD)
            for grown in ([*members, *team], [*members, outcome]):
                if fits([member.candidate for member in grown]):
                    members = grown
                    break
    return members


def _same_backbone(one: View, other: View) -> bool:
    return one.backbone == other.backbone


def _same_weights(one: View, other: View) -> bool:
    return one.label == other.label


@dataclass
class BestOutcomes:
    """Best outcomes by pass; `affordable` says whether meta-test with some candidates may be reserved."""

    affordable: Fits
    _of_source: dict[Hashable, list[Outcome]] = field(default_factory=lambda: defaultdict(list), init=False)
    _reserved: list[Candidate] | None = field(default=None, init=False)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome that has an answer, if it is among the best of its pass."""
        kept = self._of_source[outcome.candidate.source]
        kept[:] = best_of_each_metric([*kept, outcome])[:KEPT]
        self._reserved = None

    def best_of(self, source: Hashable) -> Outcome | None:
        """The best outcome of a pass so far."""
        kept = self._of_source.get(source)
        return kept[0] if kept else None

    @property
    def outcomes(self) -> list[Outcome]:
        """All that are kept."""
        return [outcome for kept in self._of_source.values() for outcome in kept]

    @property
    def heads(self) -> list[Outcome]:
        """Those of them that are heads, not trained learners, best first."""
        heads = (one for one in self.outcomes if isinstance(one.candidate, HeadCandidate))
        return sorted(heads, key=lambda one: -one.score)

    @property
    def ranked(self) -> list[Outcome]:
        """The best outcome of every pass, best first."""
        return sorted((kept[0] for kept in self._of_source.values() if kept), key=lambda one: -one.score)

    @property
    def reserved(self) -> list[Candidate]:
        """The broad ensemble of what is known so far, as far as it is affordable, or the best head alone; then the
        best trained learner, if it is good. Empty before the first outcome."""
        if self._reserved is None:
            self._reserved = self._to_reserve()
        return self._reserved

    def _to_reserve(self) -> list[Candidate]:
        heads, ranked = self.heads, self.ranked
        members = [one.candidate for one in broad(heads, self.affordable) or heads[:1]]
        good = [one.candidate for one in ranked if one.score >= ranked[0].score - WORSE]
        trained = [one for one in good if isinstance(one, FamilyCandidate)][:1]
        return [*members, *trained] if self.affordable([*members, *trained]) else members
