"""Candidates of a search and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field
from typing import Literal

from autometa.backbones import View
from autometa.core.budget import stopwatch
from autometa.core.errors import AutometaError, BudgetExhausted
from autometa.evaluation.accuracy import interval95, paired_gain
from autometa.evaluation.validation_episodes import Answer
from autometa.heads import Params

Origin = Literal["", "resumed", "prior", "first guess", "carried on", "family", "sampler"]
"""Who proposed a candidate: see `Search`."""


@dataclass(frozen=True)
class Candidate:
    """What is tried: a head with its parameters on a view, or a family of learners with its options; `origin` tells
    who proposed it."""

    view: View
    head: str
    params: Params
    origin: Origin = field(default="", compare=False, repr=False)

    @property
    def identity(self) -> Hashable:
        """The same for all candidates that differ in nothing but who proposed them."""
        return self.view, self.head, tuple(sorted(self.params.items()))


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate. `answer` is there only where the status is ok; `first_look_accuracy`, its accuracy on
    the first few episodes, only where it was pruned."""

    candidate: Candidate
    status: Literal["ok", "failed", "timeout", "pruned"]
    seconds: float
    answer: Answer | None = None
    note: str = ""
    first_look_accuracy: float = -1.0

    @property
    def score(self) -> float:
        """Mean normalised accuracy, -1 without an answer."""
        return self.answer.mean if self.answer else -1.0

    def journal_line(self) -> str:
        """One JSON line."""
        accuracy = {"accuracy": self.score, "ci95": interval95(self.answer.accuracies)} if self.answer else {}
        return json.dumps(
            {
                **asdict(self.candidate),
                "view": str(self.candidate.view),
                "status": self.status,
                "seconds": round(self.seconds, 4),
                **accuracy,
                "note": self.note,
            }
        )


class Pruned(Exception):
    """A candidate is clearly behind the best one on the first few episodes, where it has this accuracy."""

    def __init__(self, accuracy: float, why: str) -> None:
        super().__init__(why)
        self.accuracy = accuracy


def guarded(measure: Callable[[Candidate], Answer], candidate: Candidate) -> Outcome:
    """The outcome of measuring a candidate, who may run out of time or memory or meet numbers that can not
    be solved: that is an outcome too."""
    elapsed = stopwatch()
    try:
        answer = measure(candidate)
    except BudgetExhausted as error:
        return Outcome(candidate, "timeout", elapsed(), note=str(error))
    except Pruned as behind:
        return Outcome(candidate, "pruned", elapsed(), note=str(behind), first_look_accuracy=behind.accuracy)
    except (AutometaError, RuntimeError, ValueError, ArithmeticError) as error:
        return Outcome(candidate, "failed", elapsed(), note=f"{type(error).__name__}: {error}")
    return Outcome(candidate, "ok", elapsed(), answer)


def one_error_rule(ranked: list[Outcome], cost: Callable[[View], float]) -> list[Outcome]:
    """Outcomes best first; but the best one of a clearly cheaper view leads if it loses no more than the
    paired standard error (Breiman et al. 1984, §3.4.3, on paired episodes)."""
    best = ranked[0]
    assert best.answer is not None
    for other in ranked[1:]:
        assert other.answer is not None
        if cost(other.candidate.view) < 0.9 * cost(best.candidate.view):
            loss, error = paired_gain(best.answer.accuracies, other.answer.accuracies)
            if loss <= error:
                return [other, *(outcome for outcome in ranked if outcome is not other)]
    return ranked
