"""Metrics learned in closed form on meta-train features: what happens to a feature before any head sees it.

`METRICS` is the table. A metric raises features to a power, centres them, whitens them by the covariance
within classes and scales them to unit length, or does only part of it; it acts on each image alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from autometa.heads.features import Prior, unit

KNOTS = 65
"""Quantiles per dimension that the rank-Gaussian transform remembers."""
SPREAD_SHRINKAGE = 0.1
"""Share of the mean over dimensions in a prior that was counted, not derived from a whitening."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class MetricSpec:
    """A row of `METRICS`: `power` first (signed square root, or ranks to normal quantiles), then centring
    on the meta-train mean, whitening with so much `shrinkage` (None: no whitening) of the covariance within
    classes towards a multiple of the identity, kept only along the `discriminants` or everywhere; then
    `unit` length."""

    power: Literal["none", "root", "rank"] = "none"
    centre: bool = False
    shrinkage: float | None = None
    discriminants: bool = False
    unit: bool = True

    @property
    def learned(self) -> bool:
        """Whether it needs meta-train features."""
        return self.centre or self.shrinkage is not None or self.power == "rank"


METRICS: dict[str, MetricSpec] = {
    "none": MetricSpec(unit=False),
    "l2": MetricSpec(),
    "root_l2": MetricSpec("root"),
    "cl2n": MetricSpec(centre=True),
    "root_cl2n": MetricSpec("root", centre=True),
    "rank_l2": MetricSpec("rank"),
    "white": MetricSpec(shrinkage=0.1),
    "root_white_weak": MetricSpec("root", shrinkage=0.5),
    "root_white": MetricSpec("root", shrinkage=0.1),
    "root_white_strong": MetricSpec("root", shrinkage=0.02),
    "rank_white": MetricSpec("rank", shrinkage=0.1),
    "root_white_long": MetricSpec("root", shrinkage=0.1, unit=False),
    "root_lda": MetricSpec("root", shrinkage=0.1, discriminants=True),
}
"""cl2n is SimpleShot's (Wang et al. 2019), root_l2 the power transform of Hu et al. 2021, white is WCCN (Hatch
et al. 2006), lda the leading generalised eigenvectors of (S_b, S_w), root_white_long the space in which PLDA
is exact."""


@dataclass(frozen=True)
class Metric:
    """A fitted metric: `knots` [k, d] of ranks, `mean` [d] and `projection` [d, d'] where the spec asks for
    them, and the `prior` of classes in its output space; float32."""

    spec: MetricSpec
    knots: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    projection: torch.Tensor | None = None
    prior: Prior | None = None

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Features float32 [..., d] → [..., d']. ValueError where the metric must be fitted first."""
        if self.spec.learned and self.mean is None:
            raise ValueError("this metric is learned, and there were no meta-train features to learn it from")
        features = apply_power(features, self.spec.power, self.knots)
        if self.mean is not None:
            features = features - self.mean.to(features)
        if self.projection is not None:
            features = features @ self.projection.to(features)
        return unit(features) if self.spec.unit else features

    def tensors(self) -> Tensors:
        """All that has to be saved beside the spec."""
        prior = {f"prior_{k}": v for k, v in vars(self.prior).items()} if self.prior else {}
        parts = {"knots": self.knots, "mean": self.mean, "projection": self.projection, **prior}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, spec: MetricSpec, tensors: Mapping[str, torch.Tensor]) -> Metric:
        """The metric that `tensors()` came from."""
        prior = None
        if "prior_mean" in tensors:
            prior = Prior(tensors["prior_mean"], tensors["prior_within"], tensors["prior_between"])
        return cls(spec, tensors.get("knots"), tensors.get("mean"), tensors.get("projection"), prior)


def find_metric(name: str) -> MetricSpec:
    """The row of `METRICS`; ValueError names the valid choices."""
    if name not in METRICS:
        raise ValueError(f"unknown feature transform `{name}`; one of {', '.join(METRICS)}")
    return METRICS[name]


def apply_power(features: torch.Tensor, power: str, knots: torch.Tensor | None) -> torch.Tensor:
    """Features [..., d] raised to a power of `MetricSpec`; `knots` for ranks."""
    if power == "root":
        return features.abs().sqrt() * features.sign()
    if power == "rank" and knots is not None:
        return rank_gaussian(features, knots)
    return features


def rank_knots(features: torch.Tensor) -> torch.Tensor:
    """Values [k, d] at evenly spread ranks of features [n, d]."""
    ranks = torch.linspace(0, len(features) - 1, KNOTS, device=features.device).round().long()
    return features.sort(dim=0).values[ranks]


def rank_gaussian(features: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
    """Features [..., d] mapped dimension by dimension so that those which the knots [k, d] came from are
    standard normal: linear between knots, constant beyond."""
    values = knots.to(features).T.contiguous()
    k = values.shape[1]
    levels: torch.Tensor = torch.special.ndtri(
        (torch.arange(k, dtype=values.dtype, device=values.device) + 0.5) / k
    )
    flat = features.reshape(-1, features.shape[-1]).T.contiguous()
    upper = torch.searchsorted(values, flat).clamp(1, k - 1)
    low, high = values.gather(1, upper - 1), values.gather(1, upper)
    part = ((flat - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
    mapped = levels[upper - 1] + part * (levels[upper] - levels[upper - 1])
    return mapped.T.reshape(features.shape)
