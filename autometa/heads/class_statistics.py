"""Statistics of meta-train features, kept by groups of classes, so that metrics can be fitted without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from autometa.heads.features import unit
from autometa.heads.fitting import (
    Scatter,
    centre_means,
    check_classes,
    factor_within,
    find_class_directions,
    lengthen_class_directions,
    lengthening,
    sum_classes,
)
from autometa.heads.metrics import Metric, MetricSpec, apply_power, find_metric


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
        for power in powers:
            _, means, sizes, squares = sum_classes(apply_power(features, power, None), labels, len(known))
            own = self._groups[power][group]
            own.means.append(means)
            own.sizes.append(sizes)
            own.within = squares if own.within is None else own.within.add_(squares)

    def fit(self, name: str, without: int | None = None) -> Metric:
        """The metric called `name`, one that whitens, fitted to all groups, or to those but one. ValueError where
        these have fewer than two classes or no class with two images."""
        spec, shrinkage, scatter = self._summed(name, without)
        projection = lengthen_class_directions(scatter, shrinkage, spec.class_power)
        return Metric(spec, None, scatter.mean.float(), projection)

    def move(self, features: torch.Tensor, name: str, without: int | None = None) -> torch.Tensor:
        """Features float32 [n, d] after the metric called `name`: much faster than to `fit` it, as no projection is
        computed. Errors as there."""
        spec, shrinkage, scatter = self._summed(name, without)
        factor = factor_within(scatter, shrinkage)
        centred = (apply_power(features, spec.power, None) - scatter.mean.float()).to(factor.dtype)
        both = torch.cat([centre_means(scatter, factor), centred])
        whitened = torch.linalg.solve_triangular(factor, both.T, upper=False).T
        means, moved = whitened[: len(scatter.sizes)], whitened[len(scatter.sizes) :]
        directions, variances = find_class_directions(means)
        gains = lengthening(variances, spec.class_power).to(factor.dtype)
        moved = (moved + (moved @ directions * (gains - 1)) @ directions.T).float()
        return unit(moved) if spec.unit else moved

    def _summed(self, name: str, without: int | None) -> tuple[MetricSpec, float, Scatter]:
        """The metric's spec, its shrinkage, and the statistics of all groups or of all but one."""
        spec = find_metric(name)
        if spec.shrinkage is None or spec.discriminants or spec.power == "rank":
            raise ValueError(f"`{name}` is not a metric that is fitted to sums: name one that whitens")
        return spec, spec.shrinkage, _add_up(self._groups[spec.power], without)


def _add_up(groups: Mapping[int, _Group], without: int | None) -> Scatter:
    """All groups, or all but one, together. ValueError where metrics cannot be fitted to them."""
    kept = [group for place, group in groups.items() if place != without]
    sizes = torch.cat([size for group in kept for size in group.sizes]) if kept else torch.empty(0)
    images, classes = int(sizes.sum()), len(sizes)
    check_classes(images, classes)
    means = torch.cat([mean for group in kept for mean in group.means])
    within = sum(group.within for group in kept if group.within is not None)
    assert isinstance(within, torch.Tensor), "classes have sums of squares"
    return Scatter(sizes @ means / images, means, sizes, within / (images - classes))
