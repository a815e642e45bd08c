"""From outcomes of the search to the ensemble: the cheaper of equals first, calibrated, greedily mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from autometa.backbones import Source, View
from autometa.evaluation.mixing import calibrate, select_members
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.search.best_outcomes import broad
from autometa.search.candidates import Candidate, Outcome, one_error_rule
from autometa.search.family_trials import is_family

CANDIDATES_TO_MIX, BEST_OF_ALL, BEST_OF_EACH = 24, 6, 2

WeightedCandidate = tuple[Candidate, float, float]
"""A candidate with its temperature and its weight in the ensemble."""


def ensembles(
    done: Sequence[Outcome],
    episodes: ValidationEpisodes,
    fits: Callable[[Iterable[View]], bool],
    image_s: Callable[[View], float],
    max_members: int,
) -> list[list[WeightedCandidate]]:
    """What fresh episodes are to decide between, out of outcomes that have answers on `episodes`: the best head
    alone; members added to it greedily; `broad`, with equal weights, what every backbone has with several metrics.

    `fits` says whether meta-test with a head on each of some views fits in the time left; where not even one does,
    the cheapest view is taken. `image_s`: cost of a view.
    """
    heads = _in_time([outcome for outcome in done if not is_family(outcome.candidate)], fits, image_s)
    trained = [o for o in done if is_family(o.candidate) and fits([o.candidate.view])]
    best_first = one_error_rule(sorted(heads, key=lambda outcome: -outcome.score), image_s)
    wide = broad(best_first, fits)
    ranked = _diverse(best_first)
    ranked += [outcome for outcome in [*wide, *trained] if all(outcome is not one for one in ranked)]
    answers = [outcome.answer for outcome in ranked if outcome.answer is not None]
    temperatures, voices = zip(*(calibrate(answer, episodes) for answer in answers), strict=True)
    weights = select_members(
        voices, episodes, lambda places: fits([ranked[p].candidate.view for p in places]), max_members
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
        source = outcome.candidate.view.source
        of_source[source] += 1
        if len(kept) < BEST_OF_ALL or of_source[source] <= BEST_OF_EACH:
            kept.append(outcome)
    return kept[:CANDIDATES_TO_MIX]


def _in_time(
    done: Sequence[Outcome], fits: Callable[[Iterable[View]], bool], image_s: Callable[[View], float]
) -> list[Outcome]:
    """Outcomes whose view fits; where things went slower than predicted, those of the cheapest view."""
    if in_time := [outcome for outcome in done if fits([outcome.candidate.view])]:
        return in_time
    cheapest = min((outcome.candidate.view for outcome in done), key=image_s)
    return [outcome for outcome in done if outcome.candidate.view == cheapest]
