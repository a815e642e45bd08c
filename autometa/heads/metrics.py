"""Metrics: transforms of features before any head, learned in closed form from meta-train features.

`METRICS` is the table. A metric raises features to a power, centres them, whitens them by the covariance within
classes and scales them to unit length, or does some of these steps. It transforms each image on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from autometa.core.files import hash_tensors
from autometa.heads.features import Prior, unit

KNOTS = 65
"""Number of quantiles per dimension that the rank-Gaussian transform keeps."""
SPREAD_SHRINKAGE = 0.1
"""Shrinkage of the variances of a prior towards their mean over dimensions, if they do not come from a whitening."""


@dataclass(frozen=True)
class MetricSpec:
    """A row of `METRICS`: the steps, in this order.

    `power`: signed square root, or ranks to normal quantiles. `centre`: subtract the meta-train mean. `shrinkage`:
    whiten by the covariance within classes, shrunk by this much towards a multiple of the identity (None: no
    whitening), and with `discriminants` keep only the dimensions in which class means differ. `class_power`: multiply
    the squared length along each direction of class means by (1 + its variance over the mean of these variances) to
    this power. `unit`: scale to unit length.
    """

    power: Literal["none", "root", "rank"] = "none"
    centre: bool = False
    shrinkage: float | None = None
    discriminants: bool = False
    unit: bool = True
    class_power: float = 0.0

    @property
    def learned(self) -> bool:
        """Whether the metric must be fitted to meta-train features."""
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
"""Sources: `cl2n` is from SimpleShot (Wang et al. 2019), `root_l2` is the power transform of Hu et al. 2021, `white`
is WCCN (Hatch et al. 2006). `root_lda` keeps the leading generalised eigenvectors of (S_b, S_w). In the space of
`root_white_long`, PLDA is exact."""
MODE_METRICS: dict[str, MetricSpec] = {
    "root_white_prior": MetricSpec("root", shrinkage=0.1, class_power=0.5),
    "white_prior": MetricSpec(shrinkage=0.1, class_power=0.5),
    "root_white_mild_prior": MetricSpec("root", shrinkage=0.6, class_power=0.5),
    "white_mild_prior": MetricSpec(shrinkage=0.6, class_power=0.5),
}
"""Metrics that only `modes` use: after whitening, the directions in which meta-train classes differ are
lengthened."""


@dataclass(frozen=True)
class Metric:
    """A fitted metric, float32: `knots` [k, d] of ranks, `mean` [d] and `projection` [d, d'], each if the spec needs
    it, and the `prior` of classes in the output space."""

    spec: MetricSpec
    knots: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    projection: torch.Tensor | None = None
    prior: Prior | None = None

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Features float32 [..., d] → [..., d']. ValueError if the metric was not fitted although it must be."""
        if self.spec.learned and self.mean is None:
            raise ValueError(
                "this metric must be fitted, but there were no meta-train features: fit it with FeatureStatistics "
                "or choose a metric that is not learned, such as l2"
            )
        features = apply_power(features, self.spec.power, self.knots)
        if self.mean is not None:
            features = features - self.mean.to(features)
        if self.projection is not None:
            features = features @ self.projection.to(features)
        return unit(features) if self.spec.unit else features

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors to save beside the spec, by name."""
        prior = {f"prior_{k}": v for k, v in vars(self.prior).items()} if self.prior else {}
        parts = {"knots": self.knots, "mean": self.mean, "projection": self.projection, **prior}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    @cached_property
    def digest(self) -> str:
        """Of its tensors, which never change."""
        return hash_tensors(self.tensors())

    @classmethod
    def from_tensors(cls, spec: MetricSpec, tensors: Mapping[str, torch.Tensor]) -> Metric:
        """The metric with this spec and the tensors of `tensors()`."""
        prior = None
        if "prior_mean" in tensors:
            prior = Prior(tensors["prior_mean"], tensors["prior_within"], tensors["prior_between"])
        return cls(spec, tensors.get("knots"), tensors.get("mean"), tensors.get("projection"), prior)


def find_metric(name: str) -> MetricSpec:
    """The row of `METRICS` called `name`. ValueError names the valid choices."""
    found = METRICS.get(name) or MODE_METRICS.get(name)
    if found is None:
        raise ValueError(f"unknown feature transform `{name}`; one of {', '.join([*METRICS, *MODE_METRICS])}")
    return found


def apply_power(features: torch.Tensor, power: str, knots: torch.Tensor | None) -> torch.Tensor:
    """Features [..., d] raised to a `power` of `MetricSpec`; `rank` needs `knots` [k, d]."""
    if power == "root":
        return features.abs().sqrt() * features.sign()
    if power == "rank" and knots is not None:
        return rank_gaussian(features, knots)
    return features


def rank_knots(features: torch.Tensor) -> torch.Tensor:
    """Quantiles [k, d] of features [n, d] at evenly spaced ranks."""
    ranks = torch.linspace(0, len(features) - 1, KNOTS, device=features.device).round().long()
    return features.sort(dim=0).values[ranks]


def rank_gaussian(features: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
    """Features [..., d] mapped so that each dimension of the features behind the `knots` [k, d] is standard normal;
    linear between knots, constant beyond them."""
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
