"""The study: Optuna's ask and tell over a space that may change."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from autometa.heads import Params

Space = Callable[[Trial | FixedTrial], object]
"""Asks a trial for everything that there is to choose."""
Key = tuple[tuple[str, Any], ...]

_KNOWN = (TrialState.COMPLETE, TrialState.PRUNED)
"""Trials that say something; one that ran out of time may do better later."""


@dataclass(frozen=True)
class TrialResult:
    """What came of the parameters of a trial: a score, or where it was pruned the accuracy on the first few
    episodes."""

    params: Params
    score: float = -1.0
    first_look_accuracy: float | None = None


class Study:
    """Asks a sampler for trials in `space` and tells it what came of them. It knows the results of `earlier` runs
    as far as they lie in the space, the last one of those with the same parameters."""

    def __init__(self, space: Space, seed: int, earlier: Sequence[TrialResult] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._seed = space, seed
        latest = {key_of(result.params): result for result in earlier}.values()
        self.earlier = [result for result in latest if self.allows(result.params)]
        self._study = self._begin(map(_frozen, self.earlier))

    def allows(self, params: Params) -> bool:
        """Whether these parameters lie in the space."""
        return self._in_space(params) is not None

    @staticmethod
    def fixed(proposal: Params) -> FixedTrial:
        """A trial that answers every question as proposed."""
        return FixedTrial(proposal)

    def renew(self) -> None:
        """Go on after the space has changed: the choices of an Optuna study cannot change, so another study takes
        over what is known."""
        self._study = self._begin(self._study.get_trials(states=_KNOWN))

    def ask(self, proposal: Params | None = None) -> Trial:
        """The trial proposed, or one that the sampler chooses."""
        if proposal is not None:
            self._study.enqueue_trial(proposal)
        return self._study.ask()

    def tell(self, trial: Trial, score: float | None, first_look_accuracy: float | None = None) -> None:
        """What came of a trial: a score, or where it was pruned its `first_look_accuracy`, or neither."""
        if score is not None:
            self._study.tell(trial, score)
        elif first_look_accuracy is not None:
            trial.report(first_look_accuracy, step=0)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _begin(self, trials: Iterable[FrozenTrial]) -> optuna.Study:
        """A study that knows those of the trials that lie in the space as it is now."""
        sampler = optuna.samplers.TPESampler(seed=self._seed)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        for trial in trials:
            if (fixed := self._in_space(trial.params)) is not None:
                study.add_trial(
                    optuna.create_trial(
                        state=trial.state,
                        value=trial.value,
                        params=fixed.params,
                        distributions=fixed.distributions,
                        intermediate_values=trial.intermediate_values,
                    )
                )
        return study

    def _in_space(self, params: Params) -> FixedTrial | None:
        """The parameters with the choices that there are now; None where they are not among them."""
        trial = FixedTrial(params)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Optuna only warns of a number out of range
                self._space(trial)
        except (ValueError, UserWarning):
            return None
        return trial


def key_of(params: Params) -> Key:
    """The same for equal parameters."""
    return tuple(sorted(params.items()))


def _frozen(result: TrialResult) -> FrozenTrial:
    """A result as a trial without distributions, which `_begin` adds."""
    looked = result.first_look_accuracy
    pruned = looked is not None
    return FrozenTrial(
        number=-1,
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=None if pruned else result.score,
        datetime_start=None,
        datetime_complete=None,
        params=dict(result.params),
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={} if looked is None else {0: looked},
        trial_id=-1,
    )
