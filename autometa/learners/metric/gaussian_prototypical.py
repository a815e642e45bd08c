"""Gaussian prototypical networks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled


class GaussianPrototypicalOptions(Options):
    """Options of `GaussianPrototypical`, explained there."""

    covariance: Literal["radius", "diagonal"] = "radius"


class GaussianPrototypical(MetricLearner):
    """Prototypical networks that also say how sure they are of an embedding: an inverse covariance s(x), one
    number (`radius`) or one per dimension (`diagonal`). The prototype is the mean weighted by s, a class has
    S_n = Σ s, and p = softmax(-(f(x) - c_n)ᵀ S_n (f(x) - c_n)) (Fort 2017), S_n divided by the shots so that
    any number of them is on one scale. s = 1 + softplus(…), so that no image is without weight."""

    options_type = GaussianPrototypicalOptions

    def __init__(self, encoder: Encoder, options: GaussianPrototypicalOptions) -> None:
        super().__init__(encoder, options)
        self.precision = nn.Linear(self.width, 1 if options.covariance == "radius" else self.width)
        nn.init.zeros_(self.precision.weight)
        nn.init.zeros_(self.precision.bias)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        certain = (1 + F.softplus(self.precision(batch.support))).expand_as(batch.support)
        own = batch.one_hot.transpose(1, 2)
        total = own @ certain
        prototypes = own @ (certain * batch.support) / total.clamp(min=1e-12)
        inverse = total / batch.shots.clamp(min=1)[..., None]
        # (f-c)ᵀS(f-c) = f²·S - 2 f·(Sc) + c·(Sc)
        moved = inverse * prototypes
        distance = (
            batch.query.square() @ inverse.transpose(1, 2)
            - 2 * batch.query @ moved.transpose(1, 2)
            + (moved * prototypes).sum(-1)[:, None, :]
        )
        return batch.mask_absent(-distance)
