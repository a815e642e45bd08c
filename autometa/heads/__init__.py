"""Heads: pure functions from support and query features to class scores, over a batch of episodes.

`HEADS` is the table: a new head is one file and one row. Every head takes a `FeatureBatch` and keyword
parameters and returns scores float32 [b, q, n], n the largest number of ways in the batch; classes that an
episode does not have score -inf. Scores are logits up to a temperature, which is fitted later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from autometa.heads.centroid import nearest_centroid
from autometa.heads.features import TRANSFORMS, FeatureBatch, FeatureStatistics, transform
from autometa.heads.logistic import logistic_regression
from autometa.heads.ridge import ridge_regression

__all__ = ["HEADS", "TRANSFORMS", "FeatureBatch", "FeatureStatistics", "HeadSpec", "apply_head"]


class Trial(Protocol):
    """The part of an Optuna trial that heads use to name their parameters."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


Params = dict[str, Any]


@dataclass(frozen=True)
class HeadSpec:
    """A row of `HEADS`: the function, how a search varies its parameters, and the first guess, in the words
    of the search (see `suggest`)."""

    function: Callable[..., torch.Tensor]
    suggest: Callable[[Trial], Params]
    first_guess: Params


def _suggest_transform(trial: Trial) -> str:
    return str(trial.suggest_categorical("transform", TRANSFORMS))


HEADS: dict[str, HeadSpec] = {
    "centroid": HeadSpec(
        nearest_centroid,
        lambda trial: {
            "transform": _suggest_transform(trial),
            "metric": trial.suggest_categorical("centroid_metric", ("euclidean", "cosine")),
        },
        {"transform": "l2", "centroid_metric": "cosine"},
    ),
    "simpleshot": HeadSpec(nearest_centroid, lambda _: {"transform": "cl2n", "metric": "euclidean"}, {}),
    "ridge": HeadSpec(
        ridge_regression,
        lambda trial: {
            "transform": _suggest_transform(trial),
            "strength": trial.suggest_float("ridge_strength", 1e-2, 1e1, log=True),
        },
        {"transform": "l2", "ridge_strength": 0.5},
    ),
    "logistic": HeadSpec(
        logistic_regression,
        lambda trial: {
            "transform": _suggest_transform(trial),
            "strength": trial.suggest_float("logistic_strength", 1e-3, 1.0, log=True),
        },
        {"transform": "l2", "logistic_strength": 0.01},
    ),
}


def apply_head(
    name: str, params: Params, batch: FeatureBatch, statistics: FeatureStatistics | None
) -> torch.Tensor:
    """Scores [b, q, n] of head `name`; its feature transform is applied first."""
    rest = {key: value for key, value in params.items() if key != "transform"}
    return HEADS[name].function(transform(batch, params["transform"], statistics), **rest)
