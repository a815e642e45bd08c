"""What a row of `HEADS` says about a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from autometa.heads.metrics import METRICS

FIRST_TRANSFORMS = ("l2", "root_white_weak")
"""Every head's first guess is tried with these: without and with a learned metric."""

Params = dict[str, Any]


class Trial(Protocol):
    """The part of an Optuna trial that heads use to name their parameters."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class LogUniform:
    """A positive number to search for on a logarithmic scale, and the first guess."""

    low: float
    high: float
    first: float

    def ask(self, trial: Trial, name: str) -> Any:
        """A value that the trial wants tried."""
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class Categorical:
    """One of several values; the first is the first guess."""

    options: tuple[Any, ...]

    @property
    def first(self) -> Any:
        """The first guess."""
        return self.options[0]

    def ask(self, trial: Trial, name: str) -> Any:
        """A value that the trial wants tried."""
        return trial.suggest_categorical(name, self.options)


@dataclass(frozen=True)
class HeadSpec:
    """A row of `HEADS`: the function (a `FeatureBatch` and keyword parameters → scores [b, q, n]), the
    `space` of its parameters and the metrics (`transforms`) that may come before it.

    A `transductive` head uses the query as a whole; one that `needs_balance` takes for granted that all
    classes have as many queries. Where the guard objects, its `counterpart` answers, an inductive head with
    the same parameters whose scores have the same scale.
    """

    function: Callable[..., torch.Tensor]
    space: Mapping[str, LogUniform | Categorical] = field(default_factory=dict)
    transforms: tuple[str, ...] = tuple(METRICS)
    needs_balance: bool = False
    counterpart: Callable[..., torch.Tensor] | None = None

    @property
    def transductive(self) -> bool:
        """Whether it uses the query as a whole."""
        return self.counterpart is not None

    def suggest(self, trial: Trial, name: str) -> Params:
        """Parameters, `transform` among them, that a trial wants tried with the head called `name`."""
        transform = trial.suggest_categorical(self._transform_name(name), self.transforms)
        return {"transform": transform} | {k: v.ask(trial, f"{name}_{k}") for k, v in self.space.items()}

    def first_guesses(self, name: str) -> list[dict[str, Any]]:
        """What to try first, in the words of the search."""
        usual = [t for t in FIRST_TRANSFORMS if t in self.transforms] or self.transforms[:1]
        return [self.search_params(name, {"transform": t, **self.first_params()}) for t in usual]

    def search_params(self, name: str, params: Params) -> dict[str, Any]:
        """The words of the search for `params`, `transform` among them, of the head called `name`."""
        rest = {f"{name}_{k}": v for k, v in params.items() if k != "transform"}
        return {self._transform_name(name): params["transform"], **rest}

    def metric(self, name: str, search_params: Params) -> str:
        """Name of the metric in the words of the search for the head called `name`."""
        return str(search_params[self._transform_name(name)])

    def first_params(self) -> Params:
        """The first guess as parameters, without the transform."""
        return {k: v.first for k, v in self.space.items()}

    def _transform_name(self, name: str) -> str:
        # Optuna wants the same choices wherever the same name is used
        return "transform" if self.transforms == tuple(METRICS) else f"{name}_transform"
