"""The filter before the search: in which order views are worth a trial, by a few small episodes on a few images.

What counts is what a view adds to an ensemble of those before it, not only how good it is alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from autometa.backbones import View
from autometa.core.errors import BudgetExhausted
from autometa.evaluation.mixing import LEAST_LOG
from autometa.evaluation.validation_episodes import ValidationEpisodes

FINALISTS = 2
"""Backbones whose other sizes are looked at first; the others only in the size that is best for these."""
WORSE = 0.1
"""Normalised accuracy below the best view's at which a view is left out: about three standard errors."""
NOT_WORTH = 0.03
"""Normalised accuracy, less the price, that a view may cost an ensemble, since looks are noisy."""
PRICE = 0.2
"""Normalised accuracy that a view must add to be worth all of the time left; half of it costs a quarter."""

LogProbabilities = Sequence[torch.Tensor]
"""Log-probabilities of a view's best head on the few episodes, [b, q, n] per batch."""


@dataclass(frozen=True)
class Ranking:
    """Ranks views: `answer` gives the log-probabilities of a view on `episodes` or raises BudgetExhausted, `cost`
    the share of the time left that having it takes, `goes_on` whether there is time to look at a view."""

    episodes: ValidationEpisodes
    answer: Callable[[View], LogProbabilities]
    cost: Callable[[View], float]
    goes_on: Callable[[View], bool]

    def rank(self, sizes: Sequence[Sequence[View]]) -> list[View]:
        """Views worth a trial, best first. `sizes`: all backbones at the first size, then at the others, of which the
        first that there is time for is enough. Views that there was no time to look at come last."""
        answers: dict[View, LogProbabilities] = {}
        asked: list[View] = []
        for place, group in enumerate(sizes):
            finalists = self._backbones(answers)[:FINALISTS]
            wanted = [view for view in group if not place or view.backbone in finalists]
            asked += wanted
            if self._look(wanted, answers) and place:
                break
        wanted = [view for view in self._best_size(sizes, answers) if view not in asked]
        self._look(wanted, answers)
        good = self._good(answers)
        unknown = [view for view in [*asked, *wanted] if view not in answers]
        return [*self._in_turn({view: answers[view] for view in good}), *unknown]

    def _look(self, views: Sequence[View], answers: dict[View, LogProbabilities]) -> bool:
        """Answer with each view; returns whether all could be answered."""
        for view in views:
            if self.goes_on(view):
                with contextlib.suppress(BudgetExhausted):
                    answers[view] = self.answer(view)
        return all(view in answers for view in views)

    def _value(self, answers: Sequence[LogProbabilities]) -> float:
        """Mean normalised accuracy of these answers averaged."""
        queries = self.episodes.queries
        rows = torch.stack([queries.rows(answer) for answer in answers]).clamp(min=LEAST_LOG)
        return float(queries.accuracy(rows.sum(0)))

    def _good(self, answers: dict[View, LogProbabilities]) -> list[View]:
        """Views that are not far behind the best one, best first."""
        scores = {view: self._value([answer]) for view, answer in answers.items()}
        worst = max(scores.values(), default=0.0) - WORSE
        return [view for view in sorted(scores, key=lambda view: -scores[view]) if scores[view] >= worst]

    def _backbones(self, answers: dict[View, LogProbabilities]) -> list[str]:
        """Names of good backbones, the best first."""
        return list(dict.fromkeys(view.backbone for view in self._good(answers)))

    def _best_size(
        self, sizes: Sequence[Sequence[View]], answers: dict[View, LogProbabilities]
    ) -> list[View]:
        """All good backbones in the size at which the best view of all is."""
        good = self._backbones({view: answers[view] for view in sizes[0] if view in answers})
        best = self._in_turn(answers)[:1]
        return [
            view for group in sizes if best and best[0] in group for view in group if view.backbone in good
        ]

    def _in_turn(self, answers: dict[View, LogProbabilities]) -> list[View]:
        """Each time the view that together with those before it is best, less what it costs; without those that are
        `NOT_WORTH` it."""
        turn: list[View] = []
        before = -1.0
        while len(turn) < len(answers):
            said = [answers[view] for view in turn]
            worth = {
                view: self._value([*said, answer]) - PRICE * self.cost(view) ** 2
                for view, answer in answers.items()
                if view not in turn
            }
            best = max(worth, key=lambda view: worth[view])
            if worth[best] < before - NOT_WORTH:
                break
            turn.append(best)
            before = worth[best] + PRICE * self.cost(best) ** 2
        return turn
