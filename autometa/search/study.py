"""The study: Optuna's ask and tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autometa.heads import Params

if TYPE_CHECKING:
    import optuna


def open_study(bounds: Mapping[str, tuple[float, float]], seed: int) -> Study | None:
    """A study, for which Optuna is imported now. None where it cannot be: a bundle may run where it is not installed,
    or where what it needs is of another version."""
    try:
        return Study(bounds, seed)
    except ImportError:
        return None


class Study:
    """Asks a sampler for numbers within `bounds`, on a logarithmic scale, and is told how good they are."""

    def __init__(self, bounds: Mapping[str, tuple[float, float]], seed: int) -> None:
        import optuna  # noqa: PLC0415 - needed late in a run, if at all

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.FloatDistribution(low, high, log=True)
            for name, (low, high) in bounds.items()
        }
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(sampler=sampler, direction="maximize")

    def ask(self, proposal: Params | None = None) -> optuna.Trial:
        """A trial with the numbers proposed, or with those that the sampler chooses, as its `params`."""
        if proposal is not None:
            self._study.enqueue_trial(proposal)
        return self._study.ask(self._space)

    def tell(self, trial: optuna.Trial, score: float) -> None:
        """The score of a trial: more is better."""
        self._study.tell(trial, score)
