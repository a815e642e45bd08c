"""The best outcomes of every pass of a network: what an ensemble is made of, and the only answers kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from autometa.backbones import Source, View, is_trained, untuned
from autometa.search.candidates import Outcome
from autometa.search.ranking import WORSE

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


def of_own_metric(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The best outcome with each metric, best first."""
    best: dict[object, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda one: -one.score):
        best.setdefault(outcome.candidate.params.get("transform"), outcome)
    return list(best.values())


def broad(best_first: Sequence[Outcome], fits: Callable[[Iterable[View]], bool]) -> list[Outcome]:
    """The best pass of every good network, then of tuned and untuned copies of these, as far as meta-test with a
    head on each of their views `fits`, each with the metrics that are nearly as good as its best. Mirrored images
    cost as much as another network, which is worth more."""
    least = max((outcome.score for outcome in best_first), default=0.0) - WORSE
    good = [one for one in best_first if one.score >= least and not one.candidate.view.flip]
    members: list[Outcome] = []
    for name_of in (
        lambda one: untuned(one.candidate.view.backbone),
        lambda one: one.candidate.view.backbone,
    ):
        for outcome in good:
            if name_of(outcome) in map(name_of, members):
                continue
            alike = [one for one in best_first if one.candidate.view.source == outcome.candidate.view.source]
            team = of_own_metric(one for one in alike if one.score >= outcome.score - NEARLY_AS_GOOD)
            for grown in ([*members, *team], [*members, outcome]):
                if fits([member.candidate.view for member in grown]):
                    members = grown
                    break
    return members


@dataclass
class BestOutcomes:
    """Best outcomes by pass; `affordable` says whether meta-test with some views may be reserved."""

    affordable: Callable[[Iterable[View]], bool]
    _of_source: dict[Source, list[Outcome]] = field(default_factory=lambda: defaultdict(list), init=False)
    _reserved: list[View] | None = field(default=None, init=False)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome that has an answer, if it is among the best of its pass."""
        kept = self._of_source[outcome.candidate.view.source]
        kept[:] = of_own_metric([*kept, outcome])[:KEPT]
        self._reserved = None

    def best_of(self, source: Source) -> Outcome | None:
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
        heads = (one for one in self.outcomes if not is_trained(one.candidate.view.backbone))
        return sorted(heads, key=lambda one: -one.score)

    @property
    def ranked(self) -> list[Outcome]:
        """The best outcome of every pass, best first."""
        return sorted((kept[0] for kept in self._of_source.values() if kept), key=lambda one: -one.score)

    @property
    def reserved(self) -> list[View]:
        """Views of the broad ensemble of what is known so far, as far as it is affordable, or the best view alone;
        none before the first outcome. Then that of the best trained learner, if it is good."""
        if self._reserved is None:
            self._reserved = self._to_reserve()
        return self._reserved

    def _to_reserve(self) -> list[View]:
        heads, ranked = self.heads, self.ranked
        views = [one.candidate.view for one in broad(heads, self.affordable) or heads[:1]]
        good = [one.candidate.view for one in ranked if one.score >= ranked[0].score - WORSE]
        trained = [view for view in good if is_trained(view.backbone)][:1]
        return [*views, *trained] if self.affordable([*views, *trained]) else views
