"""The search: ask and tell over views and heads, on paired validation episodes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from autometa.backbones import Source, View
from autometa.heads import HEADS, HeadSpec, Params, find_metric
from autometa.heads.spec import Trial
from autometa.search.candidates import Candidate, Origin, Outcome
from autometa.search.study import Study, TrialResult, earlier_params, key_of

SAFE = 4
"""First guesses that come before all else: what there was no time for, then, matters least."""
AT_ONCE, CARRIED_ON = 2, 4
"""Heads, the best on the first view, that are tried on every other view: these at once, so many in all later on."""
RESUMED = 4
"""Candidates of an earlier run, the best of each pass, that are measured first."""
PATIENCE = 60
"""Trials without a better one after which the search ends early."""

Attempt = Callable[[Candidate], Outcome]


class Family(Protocol):
    """A family of trained learners: its name, and the part of the space that holds its options."""

    @property
    def name(self) -> str: ...

    def suggest(self, trial: Trial) -> Params: ...

    def first_search_params(self) -> Params: ...


class Search:
    """One study over `views`, in the order given, and `heads`. `attempt` measures a candidate and never
    raises. `prior`: parameters, in the words of the search, that won elsewhere; those not in the space are left
    out. `journal` is the file that keeps the study (None: memory does); what earlier runs have left in it is
    known, and their views join those given where these have the same backbone; other views are no more."""

    def __init__(
        self,
        views: Sequence[View],
        attempt: Attempt,
        seed: int,
        heads: Mapping[str, HeadSpec] = HEADS,
        *,
        prior: Sequence[Params] = (),
        journal: Path | None = None,
    ) -> None:
        self._views = {str(view): view for view in views}
        self._views |= _views_of_earlier_runs(journal, views) if journal else {}
        self._heads = dict(heads)
        self._families: dict[str, Family] = {}
        self._attempt = attempt
        self._study = Study(self._candidate, seed, journal)
        self._prior = [params for params in prior if self._study.allows(params)]
        self._known: dict[Hashable, Outcome] = {}
        self._told = {key_of(told.params): told for told in self._study.earlier}
        self._idle = 0
        self._best = -1.0
        self._cut_short = False

    @property
    def outcomes(self) -> list[Outcome]:
        """All distinct candidates tried, in order."""
        return list(self._known.values())

    @property
    def earlier(self) -> list[TrialResult]:
        """What earlier runs have told of candidates that there still are."""
        return self._study.earlier

    def explore(self, goes_on: Callable[[], bool]) -> None:
        """The best few of an earlier run once more, since their answers are not kept. Then on the first view the
        safest first guesses and what won elsewhere; the best of these on the other views; every head's first guesses
        on the first view; the best few of all on the others, and on the best view with mirrored images. All of it
        only while `goes_on()`, but for the very first, and nothing that was told before."""
        for number, (proposal, origin) in enumerate(self._proposals()):
            if number and not goes_on():
                self._cut_short = True
                return
            self._try(proposal, origin)

    def widen(self, views: Sequence[View], goes_on: Callable[[], bool]) -> None:
        """Further views, on which the best few heads so far are tried while `goes_on()`."""
        if not views:
            return
        best = self._diverse(t.params for t in self._best_first() if t.score >= 0)[:CARRIED_ON]
        self._views |= {str(view): view for view in views}
        self._study.renew()
        for view in views:
            for params in best:
                if goes_on():
                    self._try({"view": str(view), "flip": False, **params}, "carried on")

    def refine(
        self, goes_on: Callable[[], bool], max_trials: int, is_cheap: Callable[[View], bool] = lambda _: True
    ) -> None:
        """On views that are cheap to try, what exploring had no time for, then what the sampler asks for: up to
        `max_trials` candidates in all, those of earlier runs included, or until no better one has come for
        `PATIENCE` trials, while `goes_on()`. It stops asking, too, when so many in all were for other views."""
        for proposal, origin in self._proposals() if self._cut_short else ():
            if goes_on() and is_cheap(replace(self._views[proposal["view"]], flip=proposal["flip"])):
                self._try(proposal, origin)
        self._idle = refused = 0
        while goes_on() and len(self._told) < max_trials and self._idle < PATIENCE and refused < PATIENCE:
            refused += not self._try(is_cheap=is_cheap)

    def join(self, families: Mapping[View, Family], goes_on: Callable[[], bool]) -> None:
        """Families of trained learners, each a view with options of its own instead of heads: their first guesses,
        in turn, while `goes_on()`. From then on the sampler may ask for them too."""
        self._views |= {str(view): view for view in families}
        self._families |= {str(view): family for view, family in families.items()}
        if families:
            self._study.renew()
        for view, family in families.items():
            if goes_on():
                self._try({"view": str(view), **family.first_search_params()}, "family")

    def _leave(self) -> None:
        """Families leave the space: what there is no time for now, there is none for later."""
        self._views = {name: view for name, view in self._views.items() if name not in self._families}
        self._families = {}
        self._study.renew()

    def _proposals(self) -> Iterator[tuple[Params, Origin]]:
        yield from ((told.params, "resumed") for told in self._to_resume())
        first, *others = (view for view in self._views if view not in self._families)
        guesses = [{"head": h, **guess} for h, spec in self._heads.items() for guess in spec.first_guesses(h)]
        proposals = [_proposal(first, guess) for guess in guesses]
        yield from self._untold(proposals[:SAFE], "first guess")
        yield from self._untold(self._prior, "prior")
        asked = [*self._prior, *proposals]
        for n in (AT_ONCE, CARRIED_ON):
            heads = self._best_heads(asked)[:n]
            yield from self._untold(
                [_proposal(view, head) for view in others for head in heads], "carried on"
            )
            yield from self._untold(proposals, "first guess")
        leader = self._best_first()[0].params["view"]
        best = self._best_heads(asked)[:CARRIED_ON]
        yield from self._untold([_proposal(leader, head, flip=True) for head in best], "carried on")

    def _best_heads(self, asked: Iterable[Params]) -> list[Params]:
        """Heads with their parameters, out of what was asked, the best so far first; see `_diverse`."""
        answered = [proposal for proposal in asked if self._score(proposal) >= 0]
        return self._diverse(sorted(answered, key=lambda proposal: -self._score(proposal)))

    def _diverse(self, best_first: Iterable[Params]) -> list[Params]:
        """Heads with their parameters: the best with a metric that whitens and the best with one that does not, then
        the best with every other metric, then the others. Which metric is best differs from view to view, and
        together they are better."""
        heads = list({key_of(head): head for head in map(without_view, best_first)}.values())
        metrics = [self._heads[head["head"]].metric(head["head"], head) for head in heads]
        whitens = [find_metric(metric).shrinkage is not None for metric in metrics]
        first_of_kind = {whitens.index(kind) for kind in set(whitens)}
        first_of_metric = {metrics.index(metric) for metric in set(metrics)}
        places = sorted(
            range(len(heads)), key=lambda n: (n not in first_of_kind, n not in first_of_metric, n)
        )
        return [heads[place] for place in places]

    def _to_resume(self) -> list[TrialResult]:
        """The best candidates of earlier runs, the best few of each pass of a network, best first."""
        of_pass: dict[Source, list[TrialResult]] = {}
        for told in sorted((told for told in self.earlier if told.score >= 0), key=lambda one: -one.score):
            view = replace(self._views[told.params["view"]], flip=told.params["flip"])
            of_pass.setdefault(view.source, []).append(told)
        best = [told for best in of_pass.values() for told in best[:RESUMED]]
        return sorted(best, key=lambda one: -one.score)

    def _best_first(self) -> list[TrialResult]:
        """What is known of heads, the best first."""
        heads = (told for told in self._told.values() if "head" in told.params)
        return sorted(heads, key=lambda one: -one.score)

    def _untold(self, proposals: list[Params], origin: Origin) -> Iterator[tuple[Params, Origin]]:
        return ((proposal, origin) for proposal in proposals if key_of(proposal) not in self._told)

    def _score(self, params: Params) -> float:
        told = self._told.get(key_of(params))
        return told.score if told else -1.0

    def _try(
        self,
        proposal: Params | None = None,
        origin: Origin = "sampler",
        is_cheap: Callable[[View], bool] = lambda _: True,
    ) -> bool:
        """Measure the candidate wished for, in the words of the search, or one that the sampler chooses; a
        candidate is measured once. Whether its view `is_cheap`, as else it is not measured."""
        trial = self._study.ask(proposal)
        candidate = replace(self._candidate(trial), origin=origin)
        if not is_cheap(candidate.view):
            self._study.tell(trial, None, None)
            if str(candidate.view) in self._families:
                self._leave()
            return False
        identity = candidate.identity
        outcome = self._known.get(identity) or self._attempt(candidate)
        self._known[identity] = outcome
        self._told[key_of(trial.params)] = TrialResult(trial.params, outcome.score)
        pruned = outcome.status == "pruned"
        self._study.tell(
            trial, outcome.score if outcome.answer else None, outcome.first_look_accuracy if pruned else None
        )
        self._idle = 0 if outcome.score > self._best else self._idle + 1
        self._best = max(self._best, outcome.score)
        return True

    def _candidate(self, trial: Trial) -> Candidate:
        view = self._views[trial.suggest_categorical("view", list(self._views))]
        if family := self._families.get(str(view)):
            return Candidate(view, family.name, family.suggest(trial))
        view = replace(view, flip=trial.suggest_categorical("flip", [False, True]))
        head = trial.suggest_categorical("head", list(self._heads))
        return Candidate(view, head, self._heads[head].suggest(trial, head))


def _views_of_earlier_runs(journal: Path, views: Sequence[View]) -> dict[str, View]:
    """Another run may find other sizes worth a trial: how busy the machine is decides too."""
    names = dict.fromkeys(str(params["view"]) for params in earlier_params(journal))
    backbones = {view.backbone for view in views}
    return {name: View.of(name) for name in names if View.of(name).backbone in backbones}


def _proposal(view: str, guess: Params, *, flip: bool = False) -> Params:
    return {"view": view, "flip": flip, **guess}


def without_view(params: Mapping[str, Any]) -> dict[str, Any]:
    """The head and its parameters, in the words of the search."""
    return {name: value for name, value in params.items() if name not in ("view", "flip")}
