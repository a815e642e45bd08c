"""The study: Optuna's ask and tell."""

from __future__ import annotations

from collections.abc import Mapping

from autometa.heads import Params

try:
    import optuna
except (
    ImportError
):  # a bundle may run where it is not installed, or where what it needs is of another version
    OPTUNA_IS_THERE = False
else:
    OPTUNA_IS_THERE = True


class Study:
    """Asks a sampler for numbers within `bounds`, on a logarithmic scale, and is told how good they are."""

    def __init__(self, bounds: Mapping[str, tuple[float, float]], seed: int) -> None:
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
