"""Prototypical networks."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from autometa.heads import FeatureBatch
from autometa.heads.centroid import nearest_centroid
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled

Metric = Literal["euclidean", "cosine"]


class PrototypicalOptions(Options):
    """Options of `Prototypical`, explained there."""

    metric: Metric = "euclidean"
    scale: float = Field(default=10.0, gt=0)


class Prototypical(MetricLearner):
    """p = softmax(-|f(x) - c_n|²), c_n the mean support embedding of class n (Snell et al. 2017); or the
    cosine with c_n times a learned scale. |f(x)|², the same for all classes, is left out."""

    options_type = PrototypicalOptions
    scales = ("log_scale",)

    def __init__(self, encoder: Encoder, options: PrototypicalOptions) -> None:
        super().__init__(encoder, options)
        self.metric = options.metric
        if self.metric == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(options.scale).log())

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        scores = nearest_centroid(batch, metric=self.metric)
        return scores * self.log_scale.exp() if self.metric == "cosine" else scores
