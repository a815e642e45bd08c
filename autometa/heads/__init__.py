"""Heads: pure functions from support and query features to class scores, over a batch of episodes.

`HEADS` is the table: a new head is one file and one row. Every head takes a `FeatureBatch` and keyword parameters. It
returns scores float32 [b, q, n], where n is the largest number of ways in the batch; classes that an episode does not
have score -inf. Scores are logits up to a temperature, which is fitted later. Before a head, features are transformed
by a metric: see `metrics`.
"""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch, Prior
from autometa.heads.fitting import FeatureStatistics
from autometa.heads.guard import find_suitable
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
    """Scores [b, q, n] of head `name` on features to which the metric `params["transform"]` was already applied.

    `balanced`: each class is declared to have as many queries. Episodes for which a transductive head is not suitable
    (see `guard`) get the scores of its inductive counterpart. KeyError for an unknown name.
    """
    spec, batch = HEADS[name], batch.cleaned()
    rest = {key: value for key, value in params.items() if key != "transform"}
    if spec.counterpart is None:
        return spec.function(batch, **rest)
    suitable = find_suitable(batch, needs_balance=spec.needs_balance, balanced=balanced)
    if bool(suitable.all()):
        return spec.function(batch, **rest)
    inductive = spec.counterpart(batch, **rest)
    if not bool(suitable.any()):
        return inductive
    return torch.where(suitable[:, None, None], spec.function(batch, **rest), inductive)
