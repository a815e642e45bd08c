"""The best outcomes of every pass of a network: what an ensemble can be made of, and the only answers kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch

from autometa.backbones import Source, View
from autometa.ensemble import calibrate, select
from autometa.evaluation import ValidationEpisodes
from autometa.outcomes import Outcome
from autometa.ranking import WORSE

KEPT = 5
"""Outcomes of a pass whose scores are kept: a hundred candidates' scores would fill the memory. They have metrics of
their own each: with others, the mistakes are others."""
MOST_PASSES = 4
"""Passes that meta-test is reserved for, at most."""
CONSIDERED = 6
"""Best passes out of which these come."""


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


@dataclass
class Leaders:
    """Best outcomes on `episodes` by pass; `affordable` says whether meta-test with some views may be reserved."""

    episodes: ValidationEpisodes
    affordable: Callable[[Iterable[View]], bool]
    _of_source: dict[Source, list[Outcome]] = field(default_factory=lambda: defaultdict(list), init=False)
    _voices: dict[Source, tuple[Outcome, list[torch.Tensor]]] = field(default_factory=dict, init=False)
    _reserved: list[View] | None = field(default=None, init=False)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome that has an answer, if it is among the best of its pass."""
        kept = self._of_source[outcome.candidate.view.source]
        best = kept[0] if kept else None
        kept[:] = of_own_metric([*kept, outcome])[:KEPT]
        if kept[0] is not best:
            self._reserved = None

    def of(self, source: Source) -> Outcome | None:
        """The best outcome of a pass so far."""
        kept = self._of_source.get(source)
        return kept[0] if kept else None

    @property
    def outcomes(self) -> list[Outcome]:
        """All that are kept."""
        return [outcome for kept in self._of_source.values() for outcome in kept]

    @property
    def ranked(self) -> list[Outcome]:
        """The best outcome of every pass, best first."""
        return sorted((kept[0] for kept in self._of_source.values() if kept), key=lambda one: -one.score)

    @property
    def reserved(self) -> list[View]:
        """Views of the best outcome and of those that make it better together, as far as they are affordable;
        none before the first outcome."""
        if self._reserved is None:
            self._reserved = self._together()
        return self._reserved

    def _together(self) -> list[View]:
        ranked = self.ranked[:CONSIDERED]
        near = [one for one in ranked if one.score >= ranked[0].score - WORSE]
        views = [one.candidate.view for one in near]
        if len(near) < 2:
            return views
        weights = select(
            [self._voice(one) for one in near],
            self.episodes,
            lambda places: len(places) == 1 or self.affordable([views[place] for place in places]),
            MOST_PASSES,
        )
        return [views[place] for place in weights]

    def _voice(self, outcome: Outcome) -> list[torch.Tensor]:
        """Calibrated log-probabilities of an outcome, per batch."""
        source = outcome.candidate.view.source
        known = self._voices.get(source)
        if known is None or known[0] is not outcome:
            assert outcome.answer is not None
            known = outcome, calibrate(outcome.answer, self.episodes)[1]
            self._voices[source] = known
        return known[1]
