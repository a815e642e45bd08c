"""The search: ask and tell over views and heads, on paired validation episodes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from autometa.backbones import Source, View
from autometa.heads import HEADS, HeadSpec, Params, find_metric
from autometa.heads.spec import Trial
from autometa.search.candidates import Candidate, FamilyCandidate, HeadCandidate, Origin, Outcome
from autometa.search.study import Study, TrialResult, key_of

SAFE = 4
"""First guesses that come before all else: what there was no time for, then, matters least."""
AT_ONCE, CARRIED_ON = 2, 4
"""Heads, the best on the first view, that are tried on every other view: these at once, so many in all later on."""
RESUMED = 4
"""Candidates of an earlier run, the best of each pass, that are measured first."""
PATIENCE = 60
"""Trials without a better one after which the search ends early."""

Attempt = Callable[[Candidate], Outcome]
IsCheap = Callable[[Candidate], bool]


class Family(Protocol):
    """The part of the space that holds the options of a family of trained learners."""

    def suggest(self, trial: Trial) -> Params: ...

    def first_search_params(self) -> Params: ...


class Search:
    """One study over `views`, in the order given, and `heads`. `attempt` measures a candidate and never raises.
    `prior`: parameters of the search that won elsewhere; those that are not in the space are left out. `earlier`: the
    results of earlier runs; their views join those given where these have the same backbone."""

    def __init__(
        self,
        views: Sequence[View],
        attempt: Attempt,
        seed: int,
        heads: Mapping[str, HeadSpec] = HEADS,
        *,
        prior: Sequence[Params] = (),
        earlier: Sequence[TrialResult] = (),
    ) -> None:
        self._views = {str(view): view for view in views}
        self._views |= _views_of_earlier_runs(earlier, views)
        self._heads = dict(heads)
        self._families: dict[str, tuple[FamilyCandidate, Family]] = {}
        self._attempt = attempt
        self._study = Study(self._candidate, seed, earlier)
        self._prior = [params for params in prior if self._study.allows(params)]
        self._known: dict[Hashable, Outcome] = {}
        self._results = {key_of(result.params): result for result in self._study.earlier}
        self._idle = 0
        self._best = -1.0
        self._cut_short = False

    @property
    def outcomes(self) -> list[Outcome]:
        """All distinct candidates tried, in order."""
        return list(self._known.values())

    @property
    def earlier(self) -> list[TrialResult]:
        """Results of earlier runs for candidates that there still are."""
        return self._study.earlier

    def explore(self, goes_on: Callable[[], bool]) -> None:
        """The best few of an earlier run once more, since their answers are not kept. Then on the first view the
        safest first guesses and what won elsewhere; the best of these on the other views; every head's first guesses
        on the first view; the best few of all on the others, and on the best view with mirrored images. All of it
        only while `goes_on()`, but for the very first, and nothing that was measured before."""
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
        self, goes_on: Callable[[], bool], max_trials: int, is_cheap: IsCheap = lambda _: True
    ) -> None:
        """On views that are cheap to try, what exploring had no time for, then what the sampler asks for: up to
        `max_trials` candidates in all, those of earlier runs included, or until no better one has come for
        `PATIENCE` trials, while `goes_on()`. It also stops after `PATIENCE` proposals that are not cheap."""
        for proposal, origin in self._proposals() if self._cut_short else ():
            if goes_on() and is_cheap(self._candidate(self._study.fixed(proposal))):
                self._try(proposal, origin)
        self._idle = refused = 0
        while goes_on() and len(self._results) < max_trials and self._idle < PATIENCE and refused < PATIENCE:
            refused += not self._try(is_cheap=is_cheap)

    def join(self, families: Sequence[tuple[FamilyCandidate, Family]], is_cheap: IsCheap) -> None:
        """Families of trained learners, each a choice beside the views with options of its own instead of heads:
        their first guesses, in turn, where there is time. From then on the sampler may ask for them too."""
        self._families |= {candidate.label: (candidate, family) for candidate, family in families}
        if families:
            self._study.renew()
        for candidate, family in families:
            if is_cheap(candidate):
                self._try({"view": candidate.label, **family.first_search_params()}, "family")

    def _leave(self) -> None:
        """Families leave the space: what there is no time for now, there is none for later."""
        self._families = {}
        self._study.renew()

    def _proposals(self) -> Iterator[tuple[Params, Origin]]:
        yield from ((result.params, "resumed") for result in self._to_resume())
        first, *others = self._views
        guesses = [{"head": h, **guess} for h, spec in self._heads.items() for guess in spec.first_guesses(h)]
        proposals = [_proposal(first, guess) for guess in guesses]
        yield from self._unmeasured(proposals[:SAFE], "first guess")
        yield from self._unmeasured(self._prior, "prior")
        asked = [*self._prior, *proposals]
        for n in (AT_ONCE, CARRIED_ON):
            heads = self._best_heads(asked)[:n]
            yield from self._unmeasured(
                [_proposal(view, head) for view in others for head in heads], "carried on"
            )
            yield from self._unmeasured(proposals, "first guess")
        leader = self._best_first()[0].params["view"]
        best = self._best_heads(asked)[:CARRIED_ON]
        yield from self._unmeasured([_proposal(leader, head, flip=True) for head in best], "carried on")

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
        for result in sorted(
            (result for result in self.earlier if result.score >= 0), key=lambda one: -one.score
        ):
            view = replace(self._views[result.params["view"]], flip=result.params["flip"])
            of_pass.setdefault(view.source, []).append(result)
        best = [result for best in of_pass.values() for result in best[:RESUMED]]
        return sorted(best, key=lambda one: -one.score)

    def _best_first(self) -> list[TrialResult]:
        """What is known of heads, the best first."""
        heads = (result for result in self._results.values() if "head" in result.params)
        return sorted(heads, key=lambda one: -one.score)

    def _unmeasured(self, proposals: list[Params], origin: Origin) -> Iterator[tuple[Params, Origin]]:
        return ((proposal, origin) for proposal in proposals if key_of(proposal) not in self._results)

    def _score(self, params: Params) -> float:
        result = self._results.get(key_of(params))
        return result.score if result else -1.0

    def _try(
        self,
        proposal: Params | None = None,
        origin: Origin = "sampler",
        is_cheap: IsCheap = lambda _: True,
    ) -> bool:
        """Measure the candidate proposed as search parameters, or one that the sampler chooses; a
        candidate is measured once. Whether it `is_cheap`, as else it is not measured."""
        trial = self._study.ask(proposal)
        candidate = replace(self._candidate(trial), origin=origin)
        if not is_cheap(candidate):
            self._study.tell(trial, None, None)
            if isinstance(candidate, FamilyCandidate):
                self._leave()
            return False
        identity = candidate.identity
        outcome = self._known.get(identity) or self._attempt(candidate)
        self._known[identity] = outcome
        self._results[key_of(trial.params)] = TrialResult(trial.params, outcome.score)
        pruned = outcome.status == "pruned"
        self._study.tell(
            trial, outcome.score if outcome.answer else None, outcome.first_look_accuracy if pruned else None
        )
        self._idle = 0 if outcome.score > self._best else self._idle + 1
        self._best = max(self._best, outcome.score)
        return True

    def _candidate(self, trial: Trial) -> Candidate:
        name = trial.suggest_categorical("view", [*self._views, *self._families])
        if name in self._families:
            candidate, family = self._families[name]
            return replace(candidate, options=family.suggest(trial))
        view = replace(self._views[name], flip=trial.suggest_categorical("flip", [False, True]))
        head = trial.suggest_categorical("head", list(self._heads))
        return HeadCandidate(view, head, self._heads[head].suggest(trial, head))


def _views_of_earlier_runs(earlier: Sequence[TrialResult], views: Sequence[View]) -> dict[str, View]:
    """Another run may find other sizes worth a trial: how busy the machine is decides too."""
    backbones = {view.label for view in views}
    known = [View.of(result.params["view"]) for result in earlier if "head" in result.params]
    return {str(view): view for view in known if view.label in backbones}


def _proposal(view: str, guess: Params, *, flip: bool = False) -> Params:
    return {"view": view, "flip": flip, **guess}


def without_view(params: Mapping[str, Any]) -> dict[str, Any]:
    """The head and its parameters among search parameters."""
    return {name: value for name, value in params.items() if name not in ("view", "flip")}
