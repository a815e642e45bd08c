"""The study: Optuna's ask and tell, kept in a journal that a later run reads."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from autometa.heads import Params

Space = Callable[[Trial | FixedTrial], object]
"""Asks a trial for everything that there is to choose."""
Key = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TrialResult:
    """What a trial has found: its `params`, in the words of the search, and the score, -1 where it was pruned."""

    params: Params
    score: float


class Study:
    """Asks a sampler for trials in `space` and tells it what came of them. `journal` is the file that keeps them
    (None: memory does); what earlier runs have left in it is known to the sampler and is `earlier`, in the order
    in which it was told, as far as it still lies in the space."""

    def __init__(self, space: Space, seed: int, journal: Path | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._seed = space, seed
        self._storage: BaseStorage = JournalStorage(_OwnFile(journal)) if journal else InMemoryStorage()
        self._study = self._begin(_latest(_known(self._storage)))
        self.earlier = [_told(trial) for trial in self._study.get_trials()]

    def allows(self, params: Params) -> bool:
        """Whether these parameters lie in the space."""
        return self._fixed(params) is not None

    def renew(self) -> None:
        """Go on after the space has changed: the choices of an Optuna study can not, so another one takes over
        what is known."""
        self._study = self._begin(self._study.get_trials(states=_KNOWN))

    def ask(self, proposal: Params | None = None) -> Trial:
        """The trial wished for, or one that the sampler chooses."""
        if proposal is not None:
            self._study.enqueue_trial(proposal)
        return self._study.ask()

    def tell(self, trial: Trial, score: float | None, first_look_accuracy: float | None = None) -> None:
        """What came of a trial: a score, or where it was pruned the one `first_look_accuracy`, or neither."""
        if score is not None:
            self._study.tell(trial, score)
        elif first_look_accuracy is not None:
            trial.report(first_look_accuracy, step=0)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _begin(self, trials: Iterable[FrozenTrial]) -> optuna.Study:
        """A further study in the same storage that knows those of the trials that lie in the space."""
        sampler = optuna.samplers.TPESampler(seed=self._seed)
        study = optuna.create_study(storage=self._storage, sampler=sampler, direction="maximize")
        for trial in trials:
            if (fixed := self._fixed(trial.params)) is not None:
                study.add_trial(_with_choices_of(fixed, trial))
        return study

    def _fixed(self, params: Params) -> FixedTrial | None:
        """The parameters with the choices that there are now; None where they are not among them."""
        fixed = FixedTrial(params)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Optuna only warns of a number out of range
                self._space(fixed)
        except (ValueError, UserWarning):
            return None
        return fixed


_KNOWN = (TrialState.COMPLETE, TrialState.PRUNED)
"""Trials that say something; one that ran out of time may do better in another run."""


def earlier_params(journal: Path) -> list[Params]:
    """Parameters of all trials that earlier runs have left in a journal, whatever their space was."""
    return [trial.params for trial in _known(JournalStorage(_OwnFile(journal)))]


def key_of(params: Params) -> Key:
    """The same for equal parameters."""
    return tuple(sorted(params.items()))


def _known(storage: BaseStorage) -> list[FrozenTrial]:
    names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
    return [trial for study in studies for trial in study.get_trials(states=_KNOWN)]


def _with_choices_of(fixed: FixedTrial, trial: FrozenTrial) -> FrozenTrial:
    return optuna.create_trial(
        state=trial.state,
        value=trial.value,
        params=fixed.params,
        distributions=fixed.distributions,
        intermediate_values=trial.intermediate_values,
    )


def _told(trial: FrozenTrial) -> TrialResult:
    if trial.state != TrialState.COMPLETE or trial.value is None:  # of a pruned trial it is what was glimpsed
        return TrialResult(trial.params, -1.0)
    return TrialResult(trial.params, trial.value)


def _latest(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The last one told of those with the same parameters."""
    return list({key_of(trial.params): trial for trial in trials}.values())


class _OwnFile(JournalFileBackend):
    """A journal that one process writes: no lock, which a kill would leave behind for half a minute, and no
    waiting for the disk at each of the ten lines of a trial. What a crash of the machine cuts off is mended."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append a line for each."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
