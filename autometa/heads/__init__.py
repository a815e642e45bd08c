"""Heads: pure functions from support and query features to class scores, over a batch of episodes.

`HEADS` is the table: a new head is one file and one row. Every head takes a `FeatureBatch` and keyword
parameters and returns scores float32 [b, q, n], n the largest number of ways in the batch; classes that an
episode does not have score -inf. Scores are logits up to a temperature, which is fitted later. What happens
to features before is a metric: see `metrics`.
"""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch, Prior
from autometa.heads.fitting import FeatureStatistics
from autometa.heads.guard import find_trusted
from autometa.heads.metrics import METRICS, Metric, MetricSpec, find_metric
from autometa.heads.spec import HeadSpec, Params
from autometa.heads.table import HEADS

__all__ = [
    "HEADS",
    "METRICS",
    "FeatureBatch",
    "FeatureStatistics",
    "HeadSpec",
    "Metric",
    "MetricSpec",
    "Params",
    "Prior",
    "apply_head",
    "find_metric",
]


def apply_head(name: str, params: Params, batch: FeatureBatch, *, balanced: bool = False) -> torch.Tensor:
    """Scores [b, q, n] of head `name` on features to which the metric `params["transform"]` was applied.

    Episodes on which a transductive head can not be trusted (see `guard`; `balanced`: the queries are
    declared to be equally many of each class) get the scores of its counterpart.
    """
    spec, batch = HEADS[name], batch.cleaned()
    rest = {key: value for key, value in params.items() if key != "transform"}
    if spec.counterpart is None:
        return spec.function(batch, **rest)
    fit = find_trusted(batch, needs_balance=spec.needs_balance, balanced=balanced)
    if bool(fit.all()):
        return spec.function(batch, **rest)
    careful = spec.counterpart(batch, **rest)
    if not bool(fit.any()):
        return careful
    return torch.where(fit[:, None, None], spec.function(batch, **rest), careful)
