"""The search: Optuna's ask and tell over views and heads, on paired validation episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import optuna

from autometa.backbones import View
from autometa.budget import stopwatch
from autometa.errors import AutometaError, BudgetExhausted
from autometa.evaluation import Answer, interval95, paired_gain
from autometa.heads import HEADS, HeadSpec, Params

CARRIED_ON = 4
"""First guesses, the best on the first view, that are tried on every other view."""
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
    """What came of a candidate; `answer` only where the status is ok, `glimpsed` (its accuracy on the first few
    episodes) only where it was pruned."""

    candidate: Candidate
    status: Literal["ok", "failed", "timeout", "pruned"]
    seconds: float
    answer: Answer | None = None
    note: str = ""
    glimpsed: float = -1.0

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
        self._seed = seed
        self._study = self._new_study()
        self._known: dict[tuple[Any, ...], Outcome] = {}
        self._tried: list[tuple[dict[str, Any], Outcome]] = []
        self._idle = 0
        self._best = -1.0

    @property
    def outcomes(self) -> list[Outcome]:
        """All distinct candidates tried, in order."""
        return list(self._known.values())

    def explore(self, goes_on: Callable[[], bool]) -> None:
        """On the first view every head's first guesses; on the others the best few of these, and on the best
        view with mirrored images. All of it only while `goes_on()`, but for the very first."""
        for number, wish in enumerate(self._wishes()):
            if number and not goes_on():
                return
            self._try(wish)

    def widen(self, views: Sequence[View], goes_on: Callable[[], bool]) -> None:
        """Further views, on which the best few heads so far are tried while `goes_on()`."""
        if not views:
            return
        best = [without_view(params) for params, _ in sorted(self._tried, key=lambda one: -one[1].score)]
        distinct = [params for place, params in enumerate(best) if params not in best[:place]]
        told, self._tried = self._tried, []
        self._views |= {str(view): view for view in views}
        self._study = self._new_study()  # the views of a study can not change
        for params, _ in told:
            self._try(params)
        for view in views:
            for params in distinct[:CARRIED_ON]:
                if goes_on():
                    self._try({"view": str(view), "flip": False, **params})

    def refine(self, goes_on: Callable[[], bool], max_trials: int) -> None:
        """What the sampler asks for, up to `max_trials` candidates in all or until no better one has come for
        `PATIENCE` trials, while `goes_on()`."""
        self._idle = 0
        while goes_on() and len(self._known) < max_trials and self._idle < PATIENCE:
            self._try()

    def also(self, candidate: Candidate) -> None:
        """Measure a candidate of another kind, beside the study."""
        self._known[_identity(candidate)] = self._attempt(candidate)

    def _wishes(self) -> Iterator[dict[str, Any]]:
        first, *others = self._views
        guesses = [{"head": h, **guess} for h, spec in self._heads.items() for guess in spec.first_guesses(h)]
        plain = {"flip": False}
        yield from ({"view": first, **plain, **guess} for guess in guesses)
        scores = [outcome.score for _, outcome in self._tried]
        best = sorted(range(len(guesses)), key=lambda place: -scores[place])[:CARRIED_ON]
        yield from ({"view": view, **plain, **guesses[place]} for view in others for place in best)
        leader = str(max((outcome for _, outcome in self._tried), key=lambda o: o.score).candidate.view)
        yield from ({"view": leader, "flip": True, **guesses[place]} for place in best)

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=self._seed))

    def _try(self, wish: dict[str, Any] | None = None) -> Outcome:
        """The outcome of the candidate wished for, in the words of the search, or of one that the sampler
        chooses; a candidate is measured once."""
        if wish is not None:
            self._study.enqueue_trial(wish)
        trial = self._study.ask()
        candidate = self._candidate(trial)
        identity = _identity(candidate)
        outcome = self._known.get(identity) or self._attempt(candidate)
        self._known[identity] = outcome
        self._tried.append((trial.params, outcome))
        self._tell(trial, outcome)
        self._idle = 0 if outcome.score > self._best else self._idle + 1
        self._best = max(self._best, outcome.score)
        return outcome

    def _candidate(self, trial: optuna.trial.Trial) -> Candidate:
        view = self._views[trial.suggest_categorical("view", list(self._views))]
        view = replace(view, flip=trial.suggest_categorical("flip", [False, True]))
        head = trial.suggest_categorical("head", list(self._heads))
        return Candidate(view, head, self._heads[head].suggest(trial, head))

    def _tell(self, trial: optuna.trial.Trial, outcome: Outcome) -> None:
        if outcome.status == "pruned":
            trial.report(outcome.glimpsed, step=0)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif outcome.answer is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, outcome.score)


def without_view(params: Mapping[str, Any]) -> dict[str, Any]:
    """The head and its parameters, in the words of the search."""
    return {name: value for name, value in params.items() if name not in ("view", "flip")}


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
    except Pruned as behind:
        return Outcome(candidate, "pruned", elapsed(), note=str(behind), glimpsed=behind.accuracy)
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
