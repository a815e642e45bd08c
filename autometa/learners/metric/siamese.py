"""Siamese networks."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import LENGTH, Encoder, ScratchEncoder
from autometa.learners.metric.base import MetricLearner, Unlabelled

LOG_HALF = math.log(0.5)
START = 4.0
"""First logit of two equal images; of two of usual difference it is 0."""
OF_NUMBERS, OF_LENGTH = 0.65, 0.4
"""Mean absolute difference of a number of two embeddings, measured on letters: of Conv-4 in training, whose numbers
come from a batch norm, and of EfficientNet-lite0, in shares of `LENGTH` / √d."""


class SiameseOptions(Options):
    """Options of `Siamese`, explained there."""

    loss: Literal["pairs", "cross_entropy"] = "pairs"


class Siamese(MetricLearner):
    """p(x, x') = σ(W·|f(x) - f(x')| + b) that two images are of one class; a class gets the mean of p over
    its support images (Koch et al. 2015). Trained on as many `pairs` of one class as of two, as published, or by the
    `cross_entropy` of the queries, whose class probabilities are these means, scaled to a sum of one.

    W starts with equal numbers, so that p falls with the absolute difference and the first answer is the class of the
    least mean difference: nearest mean, for one shot exactly. With random ones it is a guess.
    """

    options_type = SiameseOptions

    def __init__(self, encoder: Encoder, options: SiameseOptions) -> None:
        super().__init__(encoder, options)
        self.by_pairs = options.loss == "pairs"
        self.same = nn.Linear(self.width, 1)
        nn.init.constant_(self.same.weight, -START / predict_difference(encoder))
        nn.init.constant_(self.same.bias, START)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: log of the mean p per class. Where p is nearly 1, the mean is that of 1 - p, whose tiny
        differences float32 can hold; where it is nearly 0, all is in logarithms."""
        # a support image at a time, so that memory stays that of the query
        columns = [self._compare_pairs(batch.query, one[:, None, :]) for one in batch.support.unbind(1)]
        logits = torch.stack(columns, dim=-1)
        log_shots = batch.shots.clamp(min=1).log()[:, None, :]
        log_same, log_other = (
            batch.logsumexp_by_class(F.logsigmoid(each)) - log_shots for each in (logits, -logits)
        )
        near_one = torch.log1p(-log_other.clamp(max=LOG_HALF).exp())
        return batch.mask_absent(torch.where(log_same < log_other, log_same, near_one))

    def embedded_loss(
        self, batch: FeatureBatch, unlabelled: Unlabelled | None, query_labels: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of the queries, or the binary one of pairs of a query with a support image: for every query
        one of its own class and one of another, drawn at random."""
        if not self.by_pairs:
            return super().embedded_loss(batch, unlabelled, query_labels)
        own = (query_labels[:, :, None] == batch.support_labels[:, None, :]) & batch.support_mask[:, None, :]
        other = ~own & batch.support_mask[:, None, :]
        asked = query_labels >= 0
        partners = torch.stack([_draw_column(own[asked]), _draw_column(other[asked])], dim=1)
        place = torch.arange(len(own), device=asked.device)[:, None].expand_as(asked)[asked]
        pairs = batch.support[place[:, None], partners]
        logits = self._compare_pairs(batch.query[asked][:, None, :], pairs)
        target = torch.tensor([1.0, 0.0], device=logits.device).expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, target)

    def _compare_pairs(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        """Logits [...] that images are of one class, from their embeddings [..., d]."""
        logits: torch.Tensor = self.same((one - two).abs())
        return logits[..., 0]


def predict_difference(encoder: Encoder) -> float:
    """The sum of absolute differences to expect of embeddings of two classes."""
    if isinstance(encoder, ScratchEncoder):
        return OF_NUMBERS * encoder.width
    return OF_LENGTH * LENGTH * math.sqrt(encoder.width)


def _draw_column(allowed: torch.Tensor) -> torch.Tensor:
    """One allowed column of each row, at random."""
    return torch.multinomial(allowed.float(), 1)[:, 0]
