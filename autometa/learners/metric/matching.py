"""Matching networks without full context embeddings."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from autometa.heads import FeatureBatch
from autometa.heads.features import unit
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled


class MatchingOptions(Options):
    """Options of `Matching`, explained there."""

    scale: float = Field(default=10.0, gt=0)
    learn_scale: bool = True


class Matching(MetricLearner):
    """p(y|x) = Σ_i a(x, x_i) y_i, a = softmax over support images of s·cos(f(x), f(x_i)) (Vinyals et al.
    2016). The paper has s = 1; here it is learned, from `scale` on, unless `learn_scale` is off."""

    options_type = MatchingOptions
    scales = ("log_scale",)

    def __init__(self, encoder: Encoder, options: MatchingOptions) -> None:
        super().__init__(encoder, options)
        self.log_scale = nn.Parameter(torch.tensor(options.scale).log(), requires_grad=options.learn_scale)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: log p."""
        return self.attend(batch.query, batch.support, batch)

    def attend(self, query: torch.Tensor, support: torch.Tensor, batch: FeatureBatch) -> torch.Tensor:
        """log Σ_i a(x, x_i) y_i [b, q, n] for these embeddings of the queries and supports of a batch."""
        cosine = self.log_scale.exp() * unit(query) @ unit(support).transpose(1, 2)
        cosine = cosine.masked_fill(~batch.support_mask[:, None, :], float("-inf"))
        return batch.logsumexp_by_class(cosine.log_softmax(-1))
