"""Fitting metrics to meta-train features. Statistics are computed once per power and shared by metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from autometa.heads.features import Prior
from autometa.heads.metrics import SPREAD_SHRINKAGE, Metric, MetricSpec, apply_power, rank_knots

WELL_CONDITIONED = 1e4
"""A covariance whose norm is at most this many times its least eigenvalue is factorised in float32."""
LEAST_HALVED = 256
"""Triangular matrices up to this size are inverted as a whole."""


@dataclass(frozen=True)
class Scatter:
    """Class statistics of features.

    The `mean` [d] of all, the `class_means` [c, d], `sizes` [c], the number of images of each class, all float64, and
    the covariance `within` classes float32 [d, d].
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
        knots = self._power(spec.power)[1] if spec.power == "rank" else None
        if spec.shrinkage is None:
            features = self._power(spec.power)[0]
            mean = features.mean(0) if spec.centre else torch.zeros_like(features[0])
            metric = Metric(spec, knots, mean if spec.learned else None)
            return replace(metric, prior=_estimate_prior(metric(self._features), self._labels))
        scatter = self._scatter(spec.power)
        mean = scatter.mean.float()
        if spec.class_power:
            projection = lengthen_class_directions(scatter, spec.shrinkage, spec.class_power)
            return Metric(spec, knots, mean, projection)
        projection, between = compute_whitening(scatter, spec.shrinkage)
        if spec.discriminants:
            kept = min(len(scatter.sizes) - 1, len(projection))
            projection, between = projection[:, :kept].contiguous(), between[:kept]
        # scaling to unit length shrinks all variances by the same factor
        scale = 1.0
        if spec.unit:
            length = ((self._power(spec.power)[0] - mean) @ projection).square().sum(-1).clamp(min=1e-12)
            scale = float((1 / length).mean())
        within = torch.full_like(between, scale)
        prior = Prior(torch.zeros_like(within).float(), within.float(), (between * scale).float())
        return Metric(spec, knots, mean, projection, prior)

    def _scatter(self, power: str) -> Scatter:
        """Statistics of the features raised to a power; cached."""
        if power not in self._scatters:
            self._scatters[power] = compute_scatter(self._power(power)[0], self._labels)
        return self._scatters[power]

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
    check_classes(len(features), classes)
    mean, class_means, sizes, squares = sum_classes(features, labels, classes)
    return Scatter(mean, class_means, sizes, squares.div_(len(features) - classes))


def sum_classes(
    features: torch.Tensor, labels: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of features [n, d] with labels 0..c-1 [n]: their mean [d], the means [c, d] and sizes [c] of the classes, all
    float64, and the sum of squares within classes float32 [d, d]."""
    sizes = torch.bincount(labels, minlength=classes).double()
    mean = features.mean(0)
    offset = features - mean  # keeps the sums small enough for float32
    sums = torch.zeros(classes, features.shape[1], device=features.device).index_add_(0, labels, offset)
    means = sums / sizes[:, None].float()
    residual = offset - means[labels]
    return mean.double(), means.double() + mean.double(), sizes, residual.T @ residual


def check_classes(images: int, classes: int) -> None:
    """ValueError where a covariance within classes cannot be computed."""
    if classes < 2 or images <= classes:
        raise ValueError(
            f"whitening needs two classes or more and a class with several images, not {images} images "
            f"of {classes} class(es): give more images"
        )


def compute_whitening(scatter: Scatter, shrinkage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The whitening projection float32 [d, d] and the variances float64 [d] of class means after it.

    The projection turns the shrunk covariance within classes, (1-a)S_w + a·tr(S_w)/d·I, into the identity and that
    of class means into a diagonal matrix, largest variance first. The part of the variances of class means that
    comes from their finite number of images is subtracted.
    """
    d, spare = len(scatter.within), max(len(scatter.sizes) - 1, 1)
    whitening = _whiten_within(scatter, shrinkage)
    directions, variances = find_class_directions(centre_means(scatter, whitening) @ whitening)
    # Householder reflections whose product starts with the directions, up to their signs
    reflectors, factors = torch.geqrf(directions)
    projection = torch.ormqr(reflectors, factors, whitening, left=False)
    rank = len(variances)
    projection[:, :rank] *= torch.where(reflectors.diagonal() < 0, -1.0, 1.0)
    between = torch.zeros(d, dtype=torch.float64, device=projection.device)
    between[:rank] = variances / spare - (1 / scatter.sizes).mean()
    return projection.float(), between.clamp(min=0)


def lengthen_class_directions(scatter: Scatter, shrinkage: float, power: float) -> torch.Tensor:
    """The whitening projection float32 [d, d] in which the squared length along each direction of class means is
    multiplied by (1 + e/ē)^power, e the variance of class means along it and ē the mean of these variances."""
    whitening = _whiten_within(scatter, shrinkage)
    directions, variances = find_class_directions(centre_means(scatter, whitening) @ whitening)
    longer = (whitening @ directions) * (lengthening(variances, power) - 1).to(whitening.dtype)
    return torch.addmm(whitening, longer, directions.T).float()


def lengthening(variances: torch.Tensor, power: float) -> torch.Tensor:
    """By how much features become longer along directions with these variances [r] of class means, float64 [r]."""
    return (1 + variances / variances.mean().clamp(min=1e-30)) ** (power / 2)


def centre_means(scatter: Scatter, like: torch.Tensor) -> torch.Tensor:
    """Class means [c, d] about their mean, of the type of another tensor."""
    return (scatter.class_means - scatter.class_means.mean(0)).to(like.dtype)


def find_class_directions(means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal directions [d, r] of whitened class means [c, d], which are centred, and the sums of squares
    float64 [r] of these along them, largest first; r is one less than the number of classes, but d at most.

    They are eigenvectors of the smaller of the two matrices of inner products of the means."""
    c, d = means.shape
    wide = means.double() if c <= d else means.double().T
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    values, vectors = (each.flip(-1)[..., : min(c - 1, d)] for each in (values.clamp(min=0), vectors))
    if c <= d:
        vectors = wide.T @ (vectors / values.clamp(min=1e-30).sqrt())
    return vectors.to(means.dtype), values


def _whiten_within(scatter: Scatter, shrinkage: float) -> torch.Tensor:
    """The upper triangular projection [d, d] that turns the covariance within classes, shrunk towards a multiple of
    the identity, into the identity; of the type of `factor_within`."""
    return invert_lower(factor_within(scatter, shrinkage)).T


def factor_within(scatter: Scatter, shrinkage: float) -> torch.Tensor:
    """The Cholesky factor [d, d] of the covariance within classes, shrunk towards a multiple of the identity. It is
    float32 if the covariance is `WELL_CONDITIONED`, else float64."""
    average = float(scatter.within.diagonal().mean().clamp(min=1e-20))
    least = (shrinkage + 1e-6) * average
    is_well = float(torch.linalg.matrix_norm(scatter.within)) < WELL_CONDITIONED * least
    shrunk = scatter.within.to(torch.float32 if is_well else torch.float64, copy=True)
    shrunk.mul_(1 - shrinkage).diagonal().add_(least)
    factor: torch.Tensor = torch.linalg.cholesky(shrunk)
    return factor


def invert_lower(factor: torch.Tensor) -> torch.Tensor:
    """The inverse of a lower triangular matrix [d, d], by halves: matrix products cost less than solving."""
    d = len(factor)
    if d <= LEAST_HALVED:
        identity = torch.eye(d, dtype=factor.dtype, device=factor.device)
        solved: torch.Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
        return solved
    h = d // 2
    upper, lower = invert_lower(factor[:h, :h]), invert_lower(factor[h:, h:])
    inverse = torch.zeros_like(factor)
    inverse[:h, :h], inverse[h:, h:] = upper, lower
    torch.matmul(-lower, factor[h:, :h] @ upper, out=inverse[h:, :h])
    return inverse


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
