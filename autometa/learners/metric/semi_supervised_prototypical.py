"""Semi-supervised prototypical networks."""

from __future__ import annotations

import torch
from pydantic import Field

from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled


class SemiSupervisedPrototypicalOptions(Options):
    """Options of `SemiSupervisedPrototypical`, explained there."""

    rounds: int = Field(default=1, ge=0)
    transductive: bool = False


class SemiSupervisedPrototypical(MetricLearner):
    """Prototypical networks whose prototypes take in images without labels, by `rounds` of soft k-means:
    z = softmax(-|f(u) - c_n|²), then c_n = (Σ support + Σ z·f(u)) / (k + Σ z) (Ren et al. 2018).

    Where an episode gives no such images, its queries are taken for them if `transductive`; else nothing is
    refined.
    """

    options_type = SemiSupervisedPrototypicalOptions

    def __init__(self, encoder: Encoder, options: SemiSupervisedPrototypicalOptions) -> None:
        super().__init__(encoder, options)
        self.rounds, self.transductive = options.rounds, options.transductive

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        if unlabelled is None and self.transductive:
            unlabelled = Unlabelled(batch.query, batch.query_mask)
        prototypes = batch.class_means
        if unlabelled is not None:
            sums, shots = prototypes * batch.shots[..., None], batch.shots[..., None]
            for _ in range(self.rounds):
                share = _score(unlabelled.features, prototypes, batch).softmax(-1)
                share = (share * unlabelled.real[..., None]).transpose(1, 2)
                total = shots + share.sum(-1, keepdim=True)
                prototypes = (sums + share @ unlabelled.features) / total.clamp(min=1e-12)
        return _score(batch.query, prototypes, batch)


def _score(features: torch.Tensor, prototypes: torch.Tensor, batch: FeatureBatch) -> torch.Tensor:
    """-|f - c_n|² + |f|² [b, m, n]; the last part is the same for every class."""
    length = prototypes.square().sum(-1)[:, None, :]
    return batch.mask_absent(2 * features @ prototypes.transpose(1, 2) - length)
