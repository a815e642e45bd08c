"""Fitting metrics to meta-train features. Statistics are computed once per power and shared by metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from autometa.heads.features import Prior
from autometa.heads.metrics import SPREAD_SHRINKAGE, Metric, MetricSpec, apply_power, rank_knots


@dataclass(frozen=True)
class Scatter:
    """Class statistics of features, float64.

    The `mean` [d] of all, the `class_means` [c, d], `sizes` [c], the number of images of each class, and the
    covariance `within` classes [d, d].
    """

    mean: torch.Tensor
    class_means: torch.Tensor
    sizes: torch.Tensor
    within: torch.Tensor


class FeatureStatistics:
    """Meta-train features float32 [n, d] with class labels int64 [n], to fit metrics to.

    Labels can be any numbers. ValueError if there are no features, or not as many labels.
    """

    def __init__(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        if len(features) != len(labels) or not len(features):
            raise ValueError(
                f"{len(features)} features and {len(labels)} labels; give one or more, as many of both"
            )
        self._features = features
        self._labels = torch.unique(labels.to(features.device), return_inverse=True)[1]
        self._powered: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._scatters: dict[str, Scatter] = {}

    def fit(self, spec: MetricSpec) -> Metric:
        """The fitted metric. ValueError if it whitens and there are not two classes, or no class has two images."""
        features, knots = self._power(spec.power)
        if spec.shrinkage is None:
            mean = features.mean(0) if spec.centre else torch.zeros_like(features[0])
            metric = Metric(spec, knots, mean if spec.learned else None)
            return replace(metric, prior=_estimate_prior(metric(self._features), self._labels))
        if spec.power not in self._scatters:
            self._scatters[spec.power] = compute_scatter(features, self._labels)
        scatter = self._scatters[spec.power]
        if spec.class_power:
            projection = lengthen_class_directions(scatter, spec.shrinkage, spec.class_power).float()
            return Metric(spec, knots, scatter.mean.float(), projection)
        projection, between = compute_whitening(scatter, spec.shrinkage)
        if spec.discriminants:
            kept = min(len(scatter.sizes) - 1, len(projection))
            projection, between = projection[:, :kept], between[:kept]
        projection32, mean = projection.float(), scatter.mean.float()
        # scaling to unit length shrinks all variances by the same factor
        length = ((features - mean) @ projection32).square().sum(-1).clamp(min=1e-12)
        scale = float((1 / length).mean()) if spec.unit else 1.0
        within = torch.full_like(between, scale)
        prior = Prior(torch.zeros_like(within).float(), within.float(), (between * scale).float())
        return Metric(spec, knots, mean, projection32, prior)

    def _power(self, power: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The features [n, d] raised to a power, and the knots if it is `rank`; cached."""
        if power not in self._powered:
            knots = rank_knots(self._features) if power == "rank" else None
            self._powered[power] = apply_power(self._features, power, knots), knots
        return self._powered[power]


def compute_scatter(features: torch.Tensor, labels: torch.Tensor) -> Scatter:
    """Statistics of features [n, d] with labels 0..c-1 [n]. ValueError if there is only one class, or no class has
    two images."""
    classes = int(labels.max()) + 1
    spare = len(features) - classes
    if classes < 2 or spare < 1:
        raise ValueError(
            f"whitening needs two classes or more and a class with several images, not {len(features)} images "
            f"of {classes} class(es): give more images"
        )
    sizes = torch.bincount(labels, minlength=classes).double()
    mean = features.mean(0)
    offset = features - mean  # keeps the sums small enough for float32
    sums = torch.zeros(classes, features.shape[1], device=features.device).index_add_(0, labels, offset)
    means = sums / sizes[:, None].float()
    residual = offset - means[labels]
    within = (residual.T @ residual).double() / spare
    return Scatter(mean.double(), means.double() + mean.double(), sizes, within)


def compute_whitening(scatter: Scatter, shrinkage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The whitening projection [d, d] and the variances [d] of class means after it; float64.

    The projection turns the shrunk covariance within classes, (1-a)S_w + a·tr(S_w)/d·I, into the identity and that
    of class means into a diagonal matrix, largest variance first. The part of the variances of class means that
    comes from their finite number of images is subtracted.
    """
    d = len(scatter.within)
    factor = _factor_within(scatter, shrinkage)
    means = scatter.class_means - scatter.class_means.mean(0)
    whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)
    basis, sizes, _ = torch.linalg.svd(whitened, full_matrices=True)
    projection = torch.linalg.solve_triangular(factor.T, basis, upper=True)
    between = torch.zeros(d, dtype=torch.float64, device=projection.device)
    between[: len(sizes)] = sizes.square() / max(len(means) - 1, 1)
    rank = min(len(means) - 1, d)
    between[:rank] -= (1 / scatter.sizes).mean()
    return projection, between.clamp(min=0)


def lengthen_class_directions(scatter: Scatter, shrinkage: float, power: float) -> torch.Tensor:
    """The whitening projection [d, d] in which the squared length along each direction of class means is multiplied
    by (1 + e/ē)^power, e the variance of class means along it and ē the mean of these variances; float64."""
    factor = _factor_within(scatter, shrinkage)
    means = scatter.class_means - scatter.class_means.mean(0)
    whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)
    directions, sizes, _ = torch.linalg.svd(whitened, full_matrices=False)
    variances = sizes[: len(means) - 1].square()
    directions = directions[:, : len(variances)]
    gains = (1 + variances / variances.mean().clamp(min=1e-30)) ** (power / 2)
    unwhitened = torch.linalg.solve_triangular(factor.T, directions, upper=True)
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    projection: torch.Tensor = torch.linalg.solve_triangular(factor.T, identity, upper=True)
    projection += (unwhitened * (gains - 1)) @ directions.T
    return projection


def _factor_within(scatter: Scatter, shrinkage: float) -> torch.Tensor:
    """Cholesky factor of the covariance within classes, shrunk towards a multiple of the identity."""
    average = scatter.within.diagonal().mean().clamp(min=1e-20)
    shrunk = (1 - shrinkage) * scatter.within
    shrunk.diagonal().add_(shrinkage * average + 1e-6 * average)
    factor: torch.Tensor = torch.linalg.cholesky(shrunk)
    return factor


def _estimate_prior(features: torch.Tensor, labels: torch.Tensor) -> Prior | None:
    """A prior from features [n, d] with labels 0..c-1 [n]; None if there is one class, or one image of each class.

    Variances are shrunk towards their mean over dimensions.
    """
    classes = int(labels.max()) + 1
    spare = len(features) - classes
    if classes < 2 or spare < 1:
        return None
    sizes = torch.bincount(labels, minlength=classes).to(features.dtype)[:, None]
    means = torch.zeros(classes, features.shape[1], device=features.device)
    means = means.index_add_(0, labels, features) / sizes
    within = (features - means[labels]).square().sum(0) / spare
    between = (means.var(0) - within * (1 / sizes).mean()).clamp(min=0)
    within, between = (
        (1 - SPREAD_SHRINKAGE) * variance + SPREAD_SHRINKAGE * variance.mean() + 1e-20
        for variance in (within, between)
    )
    return Prior(features.mean(0), within, between)
