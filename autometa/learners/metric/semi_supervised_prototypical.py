"""Semi-supervised prototypical networks."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from autometa.heads import FeatureBatch
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled

FIRST_RADIUS = 100.0
"""Of distractors, from which it is learned, as in the published code."""
MASK_HIDDEN = 20
MASK_FIRST_DEVIATION = 0.01
"""Hidden units of the network that makes masks, and the deviation of its first weights, as in the published code."""


class SemiSupervisedPrototypicalOptions(Options):
    """Options of `SemiSupervisedPrototypical`, explained there."""

    rounds: int = Field(default=1, ge=0)
    transductive: bool = False
    distractors: bool | Literal["masked"] = False


class SemiSupervisedPrototypical(MetricLearner):
    """Prototypical networks whose prototypes take in images without labels, by `rounds` of soft k-means:
    z = softmax(-|f(u) - c_n|²), then c_n = (Σ support + Σ z·f(u)) / (k + Σ z) (Ren et al. 2018).

    With `distractors` images may be of none of the classes. `true`: one more cluster at the origin, whose logit is
    -|f(u)|²/r² - log r with a learned radius r, takes its share of them, and stays there (classes have r = 1).
    `masked`: each class takes an image by a learned mask as well, which is the smaller the farther it is from the
    prototype (`DistanceMask`).

    Where an episode gives no such images, its queries are taken for them if `transductive`; else nothing is
    refined.
    """

    options_type = SemiSupervisedPrototypicalOptions
    scales = ("log_radius",)

    def __init__(self, encoder: Encoder, options: SemiSupervisedPrototypicalOptions) -> None:
        super().__init__(encoder, options)
        self.rounds, self.transductive = options.rounds, options.transductive
        in_cluster, masked = options.distractors is True, options.distractors == "masked"
        self.log_radius = nn.Parameter(torch.tensor(math.log(FIRST_RADIUS))) if in_cluster else None
        self.mask = DistanceMask() if masked else None

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        if unlabelled is None and self.transductive:
            unlabelled = Unlabelled(batch.query, batch.query_mask)
        prototypes = batch.class_means
        if unlabelled is not None:
            sums, shots = prototypes * batch.shots[..., None], batch.shots[..., None]
            limits = self.mask.limits(unlabelled, prototypes) if self.mask is not None else None
            for _ in range(self.rounds):
                share = self._share(unlabelled.features, prototypes, batch)
                share = (share * unlabelled.real[..., None]).transpose(1, 2)
                if limits is not None:
                    share = share * mask_by_distance(unlabelled, prototypes, limits)
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


class DistanceMask(nn.Module):
    """The network that sees how far images without labels are from a prototype, and says from where on, and how
    sharply, they do not count for it (Ren et al. 2018, §3.1.3): statistics of the distances, relative to their mean,
    → a threshold and a slope, both positive as in the published code. First they are 1."""

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Linear(5, MASK_HIDDEN), nn.Linear(MASK_HIDDEN, 2)
        for layer in (first, last):
            nn.init.normal_(layer.weight, std=MASK_FIRST_DEVIATION)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(first, nn.Tanh(), last)

    def limits(self, unlabelled: Unlabelled, prototypes: torch.Tensor) -> torch.Tensor:
        """Threshold and slope of the mask of each prototype [b, n, d]: [b, n, 2]. No gradient goes through the
        statistics."""
        with torch.no_grad():
            statistics = summarise_distances(relative_distances(unlabelled, prototypes), unlabelled.real)
        limits: torch.Tensor = self.layers(statistics).exp()
        return limits


def mask_by_distance(unlabelled: Unlabelled, prototypes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """σ(slope · (threshold - relative distance)) of each image to each prototype [b, n, d]: [b, n, u]."""
    threshold, slope = limits[..., :1], limits[..., 1:]
    return torch.sigmoid(slope * (threshold - relative_distances(unlabelled, prototypes)))


def relative_distances(unlabelled: Unlabelled, prototypes: torch.Tensor) -> torch.Tensor:
    """|f(u) - c_n|², divided by its mean over the images of an episode that are real: [b, n, u]. Padding has the
    mean."""
    lengths, features = prototypes.square().sum(-1)[..., None], unlabelled.features
    far = lengths + features.square().sum(-1)[:, None] - 2 * prototypes @ features.transpose(1, 2)
    far, real = far.clamp(min=0), unlabelled.real[:, None]
    mean = (far * real).sum(-1, keepdim=True) / real.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(real, far, mean) / mean.clamp(min=1e-12)


def summarise_distances(relative: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Least, greatest, variance, skewness and excess kurtosis of relative distances [b, n, u] over the images that
    are `real` [b, u]: [b, n, 5]. Distances that are all the same have variance 1."""
    count = real.sum(-1)[:, None].clamp(min=1)
    mean = (relative * real[:, None]).sum(-1, keepdim=True) / count[..., None]
    off = (relative - mean) * real[:, None]
    variance, third, fourth = (off.pow(power).sum(-1) / count for power in (2, 3, 4))
    variance = torch.where(variance == 0, 1.0, variance)
    shape = third / variance.pow(1.5), fourth / variance.square() - 3
    return torch.stack([relative.amin(-1), relative.amax(-1), variance, *shape], dim=-1)


def _score(features: torch.Tensor, prototypes: torch.Tensor, batch: FeatureBatch) -> torch.Tensor:
    """-|f - c_n|² + |f|² [b, m, n]; the last part is the same for every class."""
    length = prototypes.square().sum(-1)[:, None, :]
    return batch.mask_absent(2 * features @ prototypes.transpose(1, 2) - length)
