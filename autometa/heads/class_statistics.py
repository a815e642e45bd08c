"""Statistics of meta-train features, kept by groups of classes, so that metrics can be fitted to all but one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from autometa.heads.fitting import Scatter, lengthen_class_directions
from autometa.heads.metrics import Metric, apply_power, find_metric


@dataclass(frozen=True)
class _Part:
    """Of some classes: their means float64 [c, d], their sizes [c], and the sum of squares within [d, d]."""

    means: torch.Tensor
    sizes: torch.Tensor
    within: torch.Tensor


class ClassStatistics:
    """What metrics of one input (some layers of a view) are fitted to. Classes come in groups, such as those that a
    fold holds out."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, list[_Part]]] = defaultdict(lambda: defaultdict(list))

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
            part = _Part(means.double() + offset.double(), sizes, residual.T @ residual)
            self._parts[power][group].append(part)

    def fit(self, name: str, without: int | None = None) -> Metric:
        """The metric called `name`, one that whitens, fitted to all groups, or to those but one. ValueError where
        these have fewer than two classes or no class with two images."""
        spec = find_metric(name)
        if spec.shrinkage is None or spec.discriminants or spec.power == "rank":
            raise ValueError(f"`{name}` is not a metric that is fitted to sums: name one that whitens")
        scatter = _add_up(self._parts[spec.power], without)
        projection = lengthen_class_directions(scatter, spec.shrinkage, spec.class_power)
        return Metric(spec, None, scatter.mean.float(), projection.float())


def _add_up(groups: Mapping[int, list[_Part]], without: int | None) -> Scatter:
    parts = [part for group, own in groups.items() if group != without for part in own]
    sizes = torch.cat([part.sizes for part in parts]) if parts else torch.empty(0)
    images, classes = int(sizes.sum()), len(sizes)
    if classes < 2 or images <= classes:
        raise ValueError(
            f"whitening needs two classes or more and a class with several images, not {images} images of "
            f"{classes} class(es): give more images"
        )
    means = torch.cat([part.means for part in parts])
    mean = (sizes[:, None] * means).sum(0) / images
    within = torch.stack([part.within for part in parts]).sum(0, dtype=torch.float64) / (images - classes)
    return Scatter(mean, means, sizes, within)
