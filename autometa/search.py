"""The search: Optuna's ask and tell over views and heads, on paired validation episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna

from autometa.backbones import View
from autometa.budget import stopwatch
from autometa.errors import BudgetExhausted
from autometa.evaluation import Answer, interval95
from autometa.heads import HEADS, HeadSpec, Params

PATIENCE = 60
"""Trials without a better one after which the search ends early."""


@dataclass(frozen=True)
class Candidate:
    """What is tried: a head with its parameters on a view."""

    view: View
    head: str
    params: Params


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate; `answer` only where the status is ok."""

    candidate: Candidate
    status: Literal["ok", "failed", "timeout"]
    seconds: float
    answer: Answer | None = None
    note: str = ""

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


Attempt = Callable[[Candidate], Outcome]


class Search:
    """One study over `views`, in the order given, and `heads`. `attempt` measures a candidate and never
    raises."""

    def __init__(
        self, views: Sequence[View], attempt: Attempt, seed: int, heads: Mapping[str, HeadSpec] = HEADS
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._views = {str(view): view for view in views}
        self._heads = dict(heads)
        self._attempt = attempt
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._known: dict[tuple[Any, ...], Outcome] = {}
        self._idle = 0
        self._queued = 0
        for view in self._views:
            for head, spec in heads.items():
                for guess in spec.first_guesses(head):
                    self._study.enqueue_trial({"view": view, "head": head, **guess})
                    self._queued += 1

    @property
    def outcomes(self) -> list[Outcome]:
        """All distinct candidates tried, in order."""
        return list(self._known.values())

    def run(self, goes_on: Callable[[], bool], max_trials: int) -> None:
        """Every view with every head's first guesses, then what the sampler asks for, while `goes_on()` and
        fewer than `max_trials`, until no better one has come for `PATIENCE` trials."""
        best = -1.0
        for number in range(max(max_trials, self._queued)):
            if not goes_on() or (number >= self._queued and self._idle >= PATIENCE):
                return
            trial = self._study.ask()
            candidate = self._candidate(trial)
            identity = _identity(candidate)
            outcome = self._known.get(identity) or self._attempt(candidate)
            self._known[identity] = outcome
            self._tell(trial, outcome)
            self._idle = 0 if outcome.score > best else self._idle + 1
            best = max(best, outcome.score)

    def _candidate(self, trial: optuna.trial.Trial) -> Candidate:
        view = self._views[trial.suggest_categorical("view", list(self._views))]
        head = trial.suggest_categorical("head", list(self._heads))
        return Candidate(view, head, self._heads[head].suggest(trial, head))

    def _tell(self, trial: optuna.trial.Trial, outcome: Outcome) -> None:
        if outcome.answer is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, outcome.score)


def _identity(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.view, candidate.head, tuple(sorted(candidate.params.items()))


def guarded(measure: Callable[[Candidate], Answer], candidate: Candidate) -> Outcome:
    """The outcome of measuring a candidate, who may run out of time or memory or meet numbers that can not
    be solved: that is an outcome too."""
    elapsed = stopwatch()
    try:
        answer = measure(candidate)
    except BudgetExhausted as error:
        return Outcome(candidate, "timeout", elapsed(), note=str(error))
    except (RuntimeError, ValueError, ArithmeticError) as error:
        return Outcome(candidate, "failed", elapsed(), note=f"{type(error).__name__}: {error}")
    return Outcome(candidate, "ok", elapsed(), answer)
