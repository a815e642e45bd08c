"""Candidates of a search and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from autometa.backbones import View
from autometa.core.budget import stopwatch
from autometa.core.errors import AutometaError, BudgetExhausted
from autometa.evaluation.accuracy import interval95, paired_gain
from autometa.evaluation.validation_episodes import Answer
from autometa.heads import Params

Origin = Literal["", "resumed", "prior", "first guess", "carried on", "family", "sampler"]
"""Who proposed a candidate: see `Search`."""


@dataclass(frozen=True)
class HeadCandidate:
    """A head with its parameters on a view; `origin` tells who proposed it."""

    view: View
    head: str
    params: Params
    origin: Origin = field(default="", compare=False, repr=False)

    @property
    def identity(self) -> Hashable:
        """The same for all candidates that differ in nothing but who proposed them."""
        return self.view, self.head, tuple(sorted(self.params.items()))

    @property
    def source(self) -> Hashable:
        """The same for all candidates that share a pass of a network."""
        return self.view.source

    def record(self) -> dict[str, Any]:
        """What the journal says of it."""
        return {"view": str(self.view), "head": self.head, "params": self.params, "origin": self.origin}

    def __str__(self) -> str:
        return f"{self.head} on {self.view}"


@dataclass(frozen=True)
class FamilyCandidate:
    """A learner of `FAMILIES` with its options, trained on the last stages of a pretrained backbone at `px`; `origin`
    tells who proposed it."""

    family: str
    backbone: str
    px: int
    options: Params = field(default_factory=dict)
    origin: Origin = field(default="", compare=False, repr=False)

    @property
    def identity(self) -> Hashable:
        """The same for all candidates that differ in nothing but who proposed them."""
        return *self.source, tuple(sorted(self.options.items()))

    @property
    def source(self) -> tuple[str, str, int]:
        """The same for all candidates that differ in options only."""
        return self.family, self.backbone, self.px

    @property
    def label(self) -> str:
        """What the search calls it, whatever its options."""
        return f"{self.family} of {self.backbone}@{self.px}"

    def record(self) -> dict[str, Any]:
        """What the journal says of it."""
        return asdict(self)

    def __str__(self) -> str:
        return self.label


Candidate = HeadCandidate | FamilyCandidate
AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate. `answer` is there only where the status is ok; `first_look_accuracy`, its accuracy on
    the first few episodes, only where it was pruned."""

    candidate: Candidate
    status: Literal["ok", "failed", "timeout", "pruned"]
    seconds: float
    answer: Answer | None = None
    note: str = ""
    first_look_accuracy: float | None = None

    @property
    def view(self) -> View:
        """The view of a head."""
        assert isinstance(self.candidate, HeadCandidate), f"{self.candidate} has no view"
        return self.candidate.view

    @property
    def score(self) -> float:
        """Mean normalised accuracy, -1 without an answer."""
        return self.answer.mean if self.answer else -1.0

    def record(self) -> dict[str, Any]:
        """What the journal says of it; `search.resume` reads it again."""
        accuracy = {"accuracy": self.score, "ci95": interval95(self.answer.accuracies)} if self.answer else {}
        looked = (
            {"first_look_accuracy": self.first_look_accuracy} if self.first_look_accuracy is not None else {}
        )
        return {
            **self.candidate.record(),
            "status": self.status,
            "seconds": round(self.seconds, 4),
            **accuracy,
            **looked,
            "note": self.note,
        }


class Pruned(Exception):
    """A candidate is clearly behind the best one on the first few episodes, where it has this accuracy."""

    def __init__(self, accuracy: float, why: str) -> None:
        super().__init__(why)
        self.accuracy = accuracy


def measure_safely(measure: Callable[[AnyCandidate], Answer], candidate: AnyCandidate) -> Outcome:
    """The outcome of measuring a candidate, which may run out of time or memory or meet numbers that cannot
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


def prefer_cheaper_within_error(ranked: list[Outcome], cost: Callable[[View], float]) -> list[Outcome]:
    """Outcomes best first; but the best one of a clearly cheaper view leads if it loses no more than the
    paired standard error (Breiman et al. 1984, §3.4.3, on paired episodes)."""
    best = ranked[0]
    assert best.answer is not None
    for other in ranked[1:]:
        assert other.answer is not None
        if cost(other.view) < 0.9 * cost(best.view):
            loss, error = paired_gain(best.answer.accuracies, other.answer.accuracies)
            if loss <= error:
                return [other, *(outcome for outcome in ranked if outcome is not other)]
    return ranked
