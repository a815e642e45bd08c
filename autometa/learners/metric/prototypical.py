"""Prototypical networks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from autometa.heads import FeatureBatch
from autometa.heads.centroid import nearest_centroid
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled, positive_log


class Prototypical(MetricLearner):
    """p = softmax(-|f(x) - c_n|²), c_n the mean support embedding of class n (Snell et al. 2017); or the
    cosine with c_n times a learned scale. |f(x)|², the same for all classes, is left out."""

    def __init__(
        self, encoder: Encoder, *, metric: Literal["euclidean", "cosine"] = "euclidean", scale: float = 10.0
    ) -> None:
        super().__init__(encoder)
        self.metric = metric
        if metric == "cosine":
            self.log_scale = nn.Parameter(positive_log(scale))

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        scores = nearest_centroid(batch, metric=self.metric)
        return scores * self.log_scale.exp() if self.metric == "cosine" else scores
