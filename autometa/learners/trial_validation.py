"""How many validation episodes a training uses, by trials of a few of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted
from autometa.core.time_policy import POLICY
from autometa.data.episodes import Episode
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes

PROBED, GROWTH = 4, 5
"""Episodes of the first trial validation, and how many times more the next one has."""

Validate = Callable[[ValidationEpisodes], Answer]


@dataclass(frozen=True)
class Chosen:
    """Episodes to validate on; what an untrained learner answers to them and the seconds that it took, where a trial
    had just these."""

    episodes: ValidationEpisodes
    answer: Answer | None = None
    seconds: float = 0.0


def choose_episodes(
    validate: Validate,
    every: Sequence[Episode],
    budget: TimeBudget,
    whole_s: float,
    report: Callable[[str], None],
) -> Chosen:
    """As many episodes as take a small share of `whole_s`, which a training has: ever more are tried, since episodes
    share images and the cost grows less than their number."""
    number, most_s = PROBED, POLICY.one_validation_share * whole_s
    while number < len(every):
        tried, elapsed = ValidationEpisodes(every[:number]), stopwatch(budget.clock)
        answer, took_s = validate(tried), elapsed()
        if GROWTH * took_s > most_s:
            fitting = min(max(number, int(number * most_s / took_s)), len(every))
            report(f"{fitting} of {len(every)} validation episodes: {number} took {took_s:.1f} s")
            if fitting == number:
                return Chosen(tried, answer, took_s)
            return Chosen(ValidationEpisodes(every[:fitting]))
        number *= GROWTH
    return Chosen(ValidationEpisodes(every))


def check_all_episodes(validate: Validate, every: Sequence[Episode], budget: TimeBudget) -> Chosen:
    """All of them. BudgetExhausted where the first few show that they take more than there is."""
    elapsed = stopwatch(budget.clock)
    validate(ValidationEpisodes(every[:PROBED]))
    needed_s = elapsed() * len(every) / min(PROBED, len(every))
    if not budget.fits(needed_s):
        raise BudgetExhausted(
            f"{len(every)} validation episodes take {needed_s:.0f} s, and a repeatable training takes all: set "
            "validation_episodes to fewer, or give more time"
        )
    return Chosen(ValidationEpisodes(every))
