"""Batches of support and query features: what every head is a function of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F

ABSENT = float("-inf")


@dataclass(frozen=True)
class Prior:
    """What meta-train says about classes in the space of the features, per dimension, float32 [d] (or
    [b, 1, d]): the `mean` of all images, the variance `within` classes and that `between` class means."""

    mean: torch.Tensor
    within: torch.Tensor
    between: torch.Tensor

    def to(self, device: torch.device | str) -> Prior:
        """The same on a device."""
        return Prior(self.mean.to(device), self.within.to(device), self.between.to(device))


@dataclass(frozen=True)
class FeatureBatch:
    """Features of b episodes, padded: support float32 [b, s, d], support labels int64 [b, s] in
    0..ways-1 (-1: padding), query float32 [b, q, d], ways int64 [b].

    `query_real` bool [b, q] tells images from padding (None: all are images). Heads rely on padded rows
    being zero, see `cleaned`. `prior` is None where no meta-train features are known. `products` gives the
    inner products [b, s + q, s + q] of all images, support first, where they are cheaper to look up than to
    compute.
    """

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    ways: torch.Tensor
    query_real: torch.Tensor | None = None
    prior: Prior | None = None
    products: Callable[[], torch.Tensor] | None = None

    @cached_property
    def one_hot(self) -> torch.Tensor:
        """Support labels as float32 [b, s, n]; rows of padding are zero."""
        classes = torch.arange(int(self.ways.max()), device=self.support_labels.device)
        return (self.support_labels[..., None] == classes).to(self.support.dtype)

    @property
    def shots(self) -> torch.Tensor:
        """Support images of each class, float32 [b, n]; zero where an episode lacks the class."""
        return self.one_hot.sum(1)

    @property
    def support_mask(self) -> torch.Tensor:
        """Which support rows are images, bool [b, s]."""
        return self.support_labels >= 0

    @property
    def query_mask(self) -> torch.Tensor:
        """Which query rows are images, bool [b, q]."""
        if self.query_real is not None:
            return self.query_real
        return torch.ones(self.query.shape[:2], dtype=torch.bool, device=self.query.device)

    @cached_property
    def present(self) -> torch.Tensor:
        """Which classes an episode has, bool [b, n]."""
        return torch.arange(self.one_hot.shape[-1], device=self.ways.device) < self.ways[:, None]

    @property
    def class_means(self) -> torch.Tensor:
        """Mean support feature of each class, [b, n, d]; zero where an episode lacks the class."""
        return self.one_hot.transpose(1, 2) @ self.support / self.shots.clamp(min=1)[..., None]

    def mask_absent(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [b, q, n] with -inf for classes that an episode does not have."""
        return scores.masked_fill(~self.present[:, None, :], ABSENT)

    def cleaned(self) -> FeatureBatch:
        """The batch with zeros in padded rows."""
        if bool(self.support_mask.all()) and bool(self.query_mask.all()):
            return self
        support, query = self.support * self.support_mask[..., None], self.query
        if self.query_real is not None:
            query = query * self.query_real[..., None]
        return replace(self, support=support, query=query)

    def unit(self) -> FeatureBatch:
        """The batch with features of unit length (zero rows stay zero)."""
        return replace(self, support=unit(self.support), query=unit(self.query), products=None)


def unit(features: torch.Tensor) -> torch.Tensor:
    """Features [..., d] scaled to unit length; zero stays zero."""
    return F.normalize(features, dim=-1, eps=1e-15)


def guess_prior(batch: FeatureBatch) -> Prior:
    """A prior from the support sets alone, [b, 1, d], the same for all dimensions: for learners that have
    seen no meta-train images. Classes with one shot tell nothing about spread; then half is taken for it."""
    real, d = batch.support_mask[..., None], batch.support.shape[-1]
    count = real.sum(1, keepdim=True)
    mean = batch.support.sum(1, keepdim=True) / count
    total = ((batch.support - mean) * real).square().sum((1, 2), keepdim=True) / d
    residual = (batch.support - batch.one_hot @ batch.class_means).square().sum((1, 2), keepdim=True) / d
    spare = count - batch.ways[:, None, None]
    within = torch.where(spare > 0, residual / spare.clamp(min=1), total / (2 * count))
    floor = batch.query.square().sum((1, 2), keepdim=True) * 1e-6 + 1e-20
    within = torch.maximum(within, 1e-3 * total / count + floor)
    between = (total / count - within).clamp(min=0) + within * 0.1
    shape = (-1, -1, d)
    return Prior(mean, within.expand(shape), between.expand(shape))
