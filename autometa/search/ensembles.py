"""From outcomes of the search to the ensemble: the cheaper of equals first, calibrated, greedily mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from autometa.backbones import Source, View
from autometa.evaluation.mixing import calibrate, select_members
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.search.best_outcomes import Fits, broad
from autometa.search.candidates import (
    Candidate,
    FamilyCandidate,
    HeadCandidate,
    Outcome,
    prefer_cheaper_within_error,
)

CANDIDATES_TO_MIX, BEST_OF_ALL, BEST_OF_EACH = 24, 6, 2

WeightedCandidate = tuple[Candidate, float, float]
"""A candidate with its temperature and its weight in the ensemble."""


def ensembles(
    done: Sequence[Outcome],
    episodes: ValidationEpisodes,
    fits: Fits,
    image_s: Callable[[View], float],
    max_members: int,
) -> list[list[WeightedCandidate]]:
    """What fresh episodes are to decide between, out of outcomes that have answers on `episodes`: the best head
    alone; members added to it greedily; `broad`, with equal weights, what every backbone has with several metrics.

    `fits` says whether meta-test with some candidates fits in the time left; where it does with none, the cheapest
    view is taken. `image_s`: cost of a view.
    """
    heads = [outcome for outcome in done if isinstance(outcome.candidate, HeadCandidate)]
    if in_time := [outcome for outcome in heads if fits([outcome.candidate])]:
        heads = in_time
    else:  # things went slower than predicted
        cheapest = min((outcome.view for outcome in heads), key=image_s)
        heads = [outcome for outcome in heads if outcome.view == cheapest]
    trained = [o for o in done if isinstance(o.candidate, FamilyCandidate) and fits([o.candidate])]
    best_first = prefer_cheaper_within_error(sorted(heads, key=lambda outcome: -outcome.score), image_s)
    wide = broad(best_first, fits)
    ranked = _diverse(best_first)
    ranked += [outcome for outcome in [*wide, *trained] if all(outcome is not one for one in ranked)]
    answers = [outcome.answer for outcome in ranked if outcome.answer is not None]
    temperatures, log_p = zip(*(calibrate(answer, episodes) for answer in answers), strict=True)
    weights = select_members(
        log_p, episodes, lambda places: fits([ranked[p].candidate for p in places]), max_members
    )
    even = {place: 1 for place, one in enumerate(ranked) if any(one is member for member in wide)}
    found = [{0: 1}, dict(weights), even]
    distinct = [one for place, one in enumerate(found) if one and one not in found[:place]]
    return [[(ranked[p].candidate, temperatures[p], float(w)) for p, w in one.items()] for one in distinct]


def _diverse(ranked: list[Outcome]) -> list[Outcome]:
    """The best few of all, and the best few of every pass of a network: members that see the same make the same
    mistakes."""
    kept: list[Outcome] = []
    of_source = Counter[Source]()
    for outcome in ranked:
        source = outcome.view.source
        of_source[source] += 1
        if len(kept) < BEST_OF_ALL or of_source[source] <= BEST_OF_EACH:
            kept.append(outcome)
    return kept[:CANDIDATES_TO_MIX]
