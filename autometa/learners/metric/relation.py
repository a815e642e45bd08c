"""Relation networks."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled
from autometa.learners.networks import ConvBlock, PointwiseConv2d

WIDEST = 128
"""Maps with more channels are projected to 64 first."""
CHANNELS = 64
HIDDEN = 8
RANDOM = 0.1
"""Share of the usual random weights in a comparison that starts as nearest mean."""
SLOPE = 20.0
PAIR_BYTES = 100_000_000
"""Of pairs of maps, of a query and a class, that are compared at a time outside training."""


class RelationOptions(Options):
    """Options of `Relation`, explained there."""

    merge: Literal["sum", "mean"] = "sum"
    reduction: Literal["plain", "normalised"] = "plain"
    loss: Literal["mse", "cross_entropy"] = "mse"


class Relation(MetricLearner):
    """r = g([c_n, f(x)]) on feature maps, c_n the sum (or the mean) of the support maps of class n, g two
    convolution blocks and two fully connected layers with a sigmoid; mean squared error to 1 for the query's
    own class and 0 for the others (Sung et al. 2018). The mean over what is left of the map comes before
    the fully connected layers, so that images of any size work.

    Wide maps, as pretrained networks have them, go through a 1×1 convolution first. Where `reduction` is
    `normalised` a batch norm follows it, as one ends the paper's own maps, and g starts, for `merge: mean`, as the
    nearest mean by the absolute difference (`start_as_nearest_mean`). With `loss: cross_entropy` there is no sigmoid:
    p is the softmax over classes of what g gives, and its cross-entropy is the loss."""

    options_type = RelationOptions

    on_maps = True

    def __init__(self, encoder: Encoder, options: RelationOptions) -> None:
        super().__init__(encoder, options)
        channels = encoder.shape[0]
        self.merge, self.softmax = options.merge, options.loss == "cross_entropy"
        normalised = channels > WIDEST and options.reduction == "normalised"
        self.reduce: nn.Module = nn.Identity()
        if channels > WIDEST:
            projection = PointwiseConv2d(channels, CHANNELS, bias=False)
            self.reduce = nn.Sequential(projection, nn.BatchNorm2d(CHANNELS)) if normalised else projection
            channels = CHANNELS
        self.maps = (channels, *encoder.shape[1:])
        self.width = channels * encoder.shape[1] * encoder.shape[2]
        self.blocks = nn.Sequential(ConvBlock(2 * channels, CHANNELS), ConvBlock(CHANNELS, CHANNELS))
        self.score = nn.Sequential(nn.Linear(CHANNELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        if normalised:
            start_as_nearest_mean(self.blocks, self.score)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Flattened maps [n, c·h·w]."""
        return self.reduce(self.encoder(inputs)).flatten(1)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: log r, or what g gives where classes are alternatives."""
        logits = self._compute_logits(batch)
        return batch.mask_absent(logits if self.softmax else F.logsigmoid(logits))

    def embedded_loss(
        self, batch: FeatureBatch, unlabelled: Unlabelled | None, query_labels: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of the queries, or the mean squared error over all pairs of a query and a class."""
        if self.softmax:
            return super().embedded_loss(batch, unlabelled, query_labels)
        relations = self._compute_logits(batch).sigmoid()
        classes = torch.arange(relations.shape[-1], device=relations.device)
        target = (query_labels[..., None] == classes).float()
        counted = (query_labels >= 0)[..., None] & batch.present[:, None, :]
        return (relations - target).square()[counted].mean()

    def _compute_logits(self, batch: FeatureBatch) -> torch.Tensor:
        """Logits of r, [b, q, n]."""
        classes = batch.class_means
        if self.merge == "sum":
            classes = classes * batch.shots[..., None]
        classes, query = classes.unflatten(-1, self.maps), batch.query.unflatten(-1, self.maps)
        if self.training:  # batch norm needs all pairs at once
            return self._relate_pairs(
                classes, query, (batch.query_mask[..., None] & batch.present[:, None, :]).flatten()
            )
        of_a_query = 2 * self.width * classes.shape[0] * classes.shape[1] * query.element_size()
        step = max(PAIR_BYTES // of_a_query, 1)
        return torch.cat([self._relate_pairs(classes, part) for part in query.split(step, dim=1)], dim=1)

    def _relate_pairs(
        self, classes: torch.Tensor, query: torch.Tensor, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of r, [b, q, n], of maps of classes [b, n, ...] and queries [b, q, ...]; zero for pairs that are not
        `real` bool [b·q·n] (None: all are)."""
        b, q, n = len(classes), query.shape[1], classes.shape[1]
        shape = (b, q, n, *self.maps)
        pairs = torch.cat([classes[:, None].expand(shape), query[:, :, None].expand(shape)], dim=3)
        pairs = pairs.flatten(0, 2)
        related = self.blocks(pairs if real is None else pairs[real]).mean((2, 3))
        logits: torch.Tensor = self.score(related)[:, 0]
        if real is not None:
            logits = logits.new_zeros(b * q * n).index_put((real,), logits)
        return logits.unflatten(0, (b, q, n))


def start_as_nearest_mean(blocks: nn.Sequential, score: nn.Sequential) -> None:
    """First weights of the comparison [c, x] of maps of `CHANNELS`: the first block gives both signs of c - x in half
    of the channels, the second keeps them, and the score falls by `SLOPE` times their mean. Some of the usual random
    weights stay, so that units come to differ."""
    half, place = CHANNELS // 2, torch.arange(CHANNELS // 2)
    first, second = (cast(nn.Conv2d, cast(ConvBlock, block)[0]).weight for block in blocks)
    down, last = cast(nn.Linear, score[0]), cast(nn.Linear, score[-1])
    with torch.no_grad():
        for weight in (first, second, down.weight, last.weight):
            weight.mul_(RANDOM)
        for sign, units in ((1, place), (-1, half + place)):
            first[units, place, 1, 1] += sign
            first[units, CHANNELS + place, 1, 1] -= sign
        second[range(CHANNELS), range(CHANNELS), 1, 1] += 1
        down.weight += 1 / CHANNELS
        last.weight -= SLOPE / HIDDEN
