"""Semi-supervised prototypical networks."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import nn

from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled

FIRST_RADIUS = 100.0
"""Of distractors, from which it is learned, as in the published code."""


class SemiSupervisedPrototypicalOptions(Options):
    """Options of `SemiSupervisedPrototypical`, explained there."""

    rounds: int = Field(default=1, ge=0)
    transductive: bool = False
    distractors: bool = False


class SemiSupervisedPrototypical(MetricLearner):
    """Prototypical networks whose prototypes take in images without labels, by `rounds` of soft k-means:
    z = softmax(-|f(u) - c_n|²), then c_n = (Σ support + Σ z·f(u)) / (k + Σ z) (Ren et al. 2018).

    With `distractors` images may be of none of the classes: one more cluster at the origin, whose logit is
    -|f(u)|²/r² - log r with a learned radius r, takes its share of them, and stays there (classes have r = 1).

    Where an episode gives no such images, its queries are taken for them if `transductive`; else nothing is
    refined.
    """

    options_type = SemiSupervisedPrototypicalOptions
    scales = ("log_radius",)

    def __init__(self, encoder: Encoder, options: SemiSupervisedPrototypicalOptions) -> None:
        super().__init__(encoder, options)
        self.rounds, self.transductive = options.rounds, options.transductive
        self.log_radius = nn.Parameter(torch.tensor(math.log(FIRST_RADIUS))) if options.distractors else None

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        if unlabelled is None and self.transductive:
            unlabelled = Unlabelled(batch.query, batch.query_mask)
        prototypes = batch.class_means
        if unlabelled is not None:
            sums, shots = prototypes * batch.shots[..., None], batch.shots[..., None]
            for _ in range(self.rounds):
                share = self._share(unlabelled.features, prototypes, batch)
                share = (share * unlabelled.real[..., None]).transpose(1, 2)
                total = shots + share.sum(-1, keepdim=True)
                prototypes = (sums + share @ unlabelled.features) / total.clamp(min=1e-12)
        return _score(batch.query, prototypes, batch)

    def _share(self, features: torch.Tensor, prototypes: torch.Tensor, batch: FeatureBatch) -> torch.Tensor:
        """How much of each image without a label [b, u, d] is of each class: [b, u, n]."""
        scores = _score(features, prototypes, batch)
        if self.log_radius is None:
            return scores.softmax(-1)
        far = features.square().sum(-1, keepdim=True)
        distractor = far - far * (-2 * self.log_radius).exp() - self.log_radius
        return torch.cat([scores, distractor], dim=-1).softmax(-1)[..., :-1]


def _score(features: torch.Tensor, prototypes: torch.Tensor, batch: FeatureBatch) -> torch.Tensor:
    """-|f - c_n|² + |f|² [b, m, n]; the last part is the same for every class."""
    length = prototypes.square().sum(-1)[:, None, :]
    return batch.mask_absent(2 * features @ prototypes.transpose(1, 2) - length)
