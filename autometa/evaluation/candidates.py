"""What comes of measuring a candidate: an answer, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autometa.core.budget import stopwatch
from autometa.core.errors import FAILURES, describe
from autometa.evaluation.validation_episodes import Answer


@dataclass(frozen=True)
class Outcome:
    """An answer, or the reason in `note` why there is none, after so many seconds."""

    seconds: float
    answer: Answer | None = None
    note: str = ""


def measure_safely(measure: Callable[[], Answer]) -> Outcome:
    """The outcome of measuring a candidate, which may run out of time or memory or meet numbers that cannot
    be solved: that is an outcome too."""
    elapsed = stopwatch()
    try:
        answer = measure()
    except FAILURES as error:
        return Outcome(elapsed(), note=describe(error))
    return Outcome(elapsed(), answer)
