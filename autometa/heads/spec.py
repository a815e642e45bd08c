"""What a row of `HEADS` says about a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from autometa.heads.metrics import METRICS

FIRST_TRANSFORMS = ("l2", "root_white_weak")
"""Metrics that the first guess of each head is tried with: one that is not learned and one that is."""

Params = dict[str, Any]
"""Parameters by name. Those of a head have their own names and `transform`; in the search, a parameter is called
HEAD_NAME, as in `ridge_strength`, so that names of different heads do not clash."""


class Trial(Protocol):
    """The part of an Optuna trial that heads use to name their parameters."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class LogUniform:
    """The range of a positive number, searched on a logarithmic scale, and its first guess."""

    low: float
    high: float
    first: float

    def ask(self, trial: Trial, name: str) -> Any:
        """The value that a trial proposes for the parameter called `name`."""
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class Categorical:
    """One of several values; the first one is the first guess."""

    options: tuple[Any, ...]

    @property
    def first(self) -> Any:
        """The first guess."""
        return self.options[0]

    def ask(self, trial: Trial, name: str) -> Any:
        """The value that a trial proposes for the parameter called `name`."""
        return trial.suggest_categorical(name, self.options)


@dataclass(frozen=True)
class HeadSpec:
    """A row of `HEADS`.

    `function` takes a `FeatureBatch` and keyword parameters and returns scores [b, q, n]; `space` gives the ranges
    of its parameters, `transforms` the metrics that can come before it. A transductive head uses all queries of an
    episode together; one that `needs_balance` assumes that each class has as many queries. For episodes that are not
    suitable (see `guard`), its `counterpart` answers: an inductive head with the same parameters and scores of the
    same scale.
    """

    function: Callable[..., torch.Tensor]
    space: Mapping[str, LogUniform | Categorical] = field(default_factory=dict)
    transforms: tuple[str, ...] = tuple(METRICS)
    needs_balance: bool = False
    counterpart: Callable[..., torch.Tensor] | None = None

    @property
    def transductive(self) -> bool:
        """Whether the head uses all queries of an episode together."""
        return self.counterpart is not None

    def suggest(self, trial: Trial, name: str) -> Params:
        """The parameters, with `transform`, that a trial proposes for the head called `name`."""
        transform = trial.suggest_categorical(self._transform_name(name), self.transforms)
        return {"transform": transform} | {k: v.ask(trial, f"{name}_{k}") for k, v in self.space.items()}

    def first_guesses(self, name: str) -> list[dict[str, Any]]:
        """The parameters to try first, under their names in the search."""
        usual = [t for t in FIRST_TRANSFORMS if t in self.transforms] or self.transforms[:1]
        return [self.search_params(name, {"transform": t, **self.first_params()}) for t in usual]

    def search_params(self, name: str, params: Params) -> dict[str, Any]:
        """`params`, with `transform`, of the head called `name`, under their names in the search."""
        rest = {f"{name}_{k}": v for k, v in params.items() if k != "transform"}
        return {self._transform_name(name): params["transform"], **rest}

    def metric(self, name: str, search_params: Params) -> str:
        """Name of the metric in the search parameters of the head called `name`."""
        return str(search_params[self._transform_name(name)])

    def first_params(self) -> Params:
        """The first guess, without `transform`."""
        return {k: v.first for k, v in self.space.items()}

    def _transform_name(self, name: str) -> str:
        # Optuna requires the same choices wherever a name is used
        return "transform" if self.transforms == tuple(METRICS) else f"{name}_transform"
