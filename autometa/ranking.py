"""The filter before the search: which views are worth a trial, by a few small episodes on a few images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from autometa.backbones import View
from autometa.errors import BudgetExhausted

FINALISTS = 2
"""Backbones whose other sizes are looked at."""
WORSE = 0.08
"""Normalised accuracy below the best view's at which a view is left out: about three standard errors."""


def ranked(
    sizes: Sequence[Sequence[View]], score: Callable[[View], float], goes_on: Callable[[], bool]
) -> list[View]:
    """Views worth a trial, best first. `sizes`: all backbones at the first size, then at the others, of which
    only the best backbones so far are scored. Those of them that there was no time to score, or that failed for
    lack of it, come last, as `goes_on()` or BudgetExhausted of `score` decides."""
    scores: dict[View, float] = {}
    asked: list[View] = []
    for place, group in enumerate(sizes):
        finalists = _backbones(scores)[:FINALISTS]
        for view in group:
            if place and view.backbone not in finalists:
                continue
            asked.append(view)
            if goes_on():
                with contextlib.suppress(BudgetExhausted):
                    scores[view] = score(view)
    worst = max(scores.values(), default=0.0) - WORSE
    good = [view for view, value in scores.items() if value >= worst]
    unknown = (view for view in asked if view not in scores)
    return [*sorted(good, key=lambda view: -scores[view]), *unknown]


def _backbones(scores: dict[View, float]) -> list[str]:
    """Names of backbones, the best first."""
    return list(dict.fromkeys(view.backbone for view in sorted(scores, key=lambda view: -scores[view])))
