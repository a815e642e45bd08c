"""Statistics of meta-train features, kept by groups of classes, so that metrics can be fitted without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from autometa.heads.features import unit
from autometa.heads.metrics import Metric, MetricSpec, apply_power, find_metric

LEAST_EIGENVALUE = 1e-6
"""Directions of class means with less than this share of the largest variance are left as they are."""


@dataclass
class _Group:
    """Of some classes: their means float64 [c, d] and sizes [c], a pair for each call, and the sum of squares within
    them [d, d]."""

    means: list[torch.Tensor] = field(default_factory=list)
    sizes: list[torch.Tensor] = field(default_factory=list)
    within: torch.Tensor | None = None


class ClassStatistics:
    """What metrics of one input (some layers of a view) are fitted to. Classes come in groups, such as those that a
    fold holds out."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[int, _Group]] = defaultdict(lambda: defaultdict(_Group))

    def add(self, features: torch.Tensor, labels: torch.Tensor, group: int, powers: Iterable[str]) -> None:
        """Features float32 [n, d] with labels int64 [n] of all images of some classes, which no other call has given:
        the same class turned is another class. `powers`: those of the metrics that will be asked for."""
        known, labels = torch.unique(labels, return_inverse=True)
        sizes = torch.bincount(labels, minlength=len(known)).double()
        for power in powers:
            powered = apply_power(features, power, None)
            offset = powered.mean(0)  # keeps the sums small enough for float32
            powered = powered - offset
            sums = torch.zeros(len(known), powered.shape[1]).index_add_(0, labels, powered)
            means = sums / sizes[:, None].float()
            residual = powered - means[labels]
            own, squares = self._groups[power][group], residual.T @ residual
            own.means.append(means.double() + offset.double())
            own.sizes.append(sizes)
            own.within = squares if own.within is None else own.within.add_(squares)

    def fit(self, name: str, without: int | None = None) -> Metric:
        """The metric called `name`, one that whitens, fitted to all groups, or to those but one. ValueError where
        these have fewer than two classes or no class with two images."""
        spec, scatter, whitening = self._whiten(name, without)
        return Metric(spec, None, scatter.mean, whitening.projection())

    def move(self, features: torch.Tensor, name: str, without: int | None = None) -> torch.Tensor:
        """Features float32 [n, d] after the metric called `name`, up to a rotation: much faster than to `fit` it.
        Errors as there."""
        spec, scatter, whitening = self._whiten(name, without)
        moved = whitening(apply_power(features, spec.power, None) - scatter.mean)
        return unit(moved) if spec.unit else moved

    def _whiten(self, name: str, without: int | None) -> tuple[MetricSpec, _Scatter, _Whitening]:
        spec = find_metric(name)
        if spec.shrinkage is None or spec.discriminants or spec.power == "rank":
            raise ValueError(f"`{name}` is not a metric that is fitted to sums: name one that whitens")
        scatter = _add_up(self._groups[spec.power], without)
        return spec, scatter, _Whitening.of(scatter, spec.shrinkage, spec.class_power)


@dataclass(frozen=True)
class _Scatter:
    """The mean [d] of images, the means [c, d] of their classes, and the covariance within classes [d, d]."""

    mean: torch.Tensor
    class_means: torch.Tensor
    within: torch.Tensor


@dataclass(frozen=True)
class _Whitening:
    """The Cholesky factor [d, d] of the shrunk covariance within classes, the `directions` [d, r] of class means once
    whitened, and the factors [r] by which features become longer along them."""

    factor: torch.Tensor
    directions: torch.Tensor
    gains: torch.Tensor

    @classmethod
    def of(cls, scatter: _Scatter, shrinkage: float, class_power: float) -> _Whitening:
        """See `lengthen_class_directions`, which this equals up to a rotation and rounding."""
        average = scatter.within.diagonal().mean().clamp(min=1e-20)
        shrunk = (1 - shrinkage) * scatter.within
        shrunk.diagonal().add_((shrinkage + 1e-6) * average)
        factor = torch.linalg.cholesky(shrunk)
        means = scatter.class_means - scatter.class_means.mean(0)
        whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)
        values, vectors = torch.linalg.eigh((whitened.T @ whitened).double())
        kept = values > LEAST_EIGENVALUE * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        directions = whitened @ (vectors * values.rsqrt()).float()
        mean = values.sum() / max(min(len(means) - 1, len(factor)), 1)
        gains = (1 + values / mean.clamp(min=1e-30)) ** (class_power / 2)
        return cls(factor, directions, gains.float())

    def __call__(self, centred: torch.Tensor) -> torch.Tensor:
        """Centred features [n, d] whitened, and lengthened along the directions."""
        white = torch.linalg.solve_triangular(self.factor, centred.T, upper=False)
        longer = self.directions @ ((self.gains - 1)[:, None] * (self.directions.T @ white))
        moved: torch.Tensor = (white + longer).T
        return moved

    def projection(self) -> torch.Tensor:
        """The same as a matrix [d, d] to multiply centred features [n, d] with."""
        identity = torch.eye(len(self.factor))
        inverse: torch.Tensor = torch.linalg.solve_triangular(self.factor.T, identity, upper=True)
        longer: torch.Tensor = (inverse @ self.directions * (self.gains - 1)) @ self.directions.T
        return longer + inverse


def _add_up(groups: Mapping[int, _Group], without: int | None) -> _Scatter:
    """All groups, or all but one, together. ValueError where metrics cannot be fitted to them."""
    kept = [group for place, group in groups.items() if place != without]
    sizes = torch.cat([size for group in kept for size in group.sizes]) if kept else torch.empty(0)
    images, classes = int(sizes.sum()), len(sizes)
    if classes < 2 or images <= classes:
        raise ValueError(
            f"whitening needs two classes or more and a class with several images, not {images} images of "
            f"{classes} class(es): give more images"
        )
    means = torch.cat([mean for group in kept for mean in group.means])
    mean = (sizes[:, None] * means).sum(0) / images
    within = sum(group.within for group in kept if group.within is not None)
    assert isinstance(within, torch.Tensor), "classes have sums of squares"
    return _Scatter(mean.float(), means.float(), within / (images - classes))
