"""Batches of support and query features: the input of every head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F

ABSENT = float("-inf")


@dataclass(frozen=True)
class Prior:
    """Statistics of the classes of meta-train in feature space, per dimension, float32 [d] (or [b, 1, d]).

    The `mean` of all images, the variance `within` classes and the variance `between` class means.
    """

    mean: torch.Tensor
    within: torch.Tensor
    between: torch.Tensor


@dataclass(frozen=True)
class FeatureBatch:
    """Features of b episodes, padded to a common size.

    Support float32 [b, s, d], support labels int64 [b, s] in 0..ways-1 (-1: padding), query float32 [b, q, d], ways
    int64 [b]. `query_real` bool [b, q] is false for padded queries (None: no query is padding). Heads need zeros in
    padded rows, see `cleaned`. `prior` is None if there are no meta-train features. `products` returns the inner
    products [b, s + q, s + q] of all images, support first, if looking them up is cheaper than computing them.
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
        """Support labels as one-hot float32 [b, s, n]; zero for padding."""
        classes = torch.arange(int(self.ways.max()), device=self.support_labels.device)
        return (self.support_labels[..., None] == classes).to(self.support.dtype)

    @property
    def shots(self) -> torch.Tensor:
        """Number of support images of each class, float32 [b, n]; zero if the episode does not have the class."""
        return self.one_hot.sum(1)

    @property
    def support_mask(self) -> torch.Tensor:
        """Which support rows are images and not padding, bool [b, s]."""
        return self.support_labels >= 0

    @property
    def query_mask(self) -> torch.Tensor:
        """Which query rows are images and not padding, bool [b, q]."""
        if self.query_real is not None:
            return self.query_real
        return torch.ones(self.query.shape[:2], dtype=torch.bool, device=self.query.device)

    @cached_property
    def present(self) -> torch.Tensor:
        """Which classes an episode has, bool [b, n]."""
        return torch.arange(self.one_hot.shape[-1], device=self.ways.device) < self.ways[:, None]

    @property
    def class_means(self) -> torch.Tensor:
        """Mean support feature of each class, [b, n, d]; zero if the episode does not have the class."""
        return self.one_hot.transpose(1, 2) @ self.support / self.shots.clamp(min=1)[..., None]

    def logsumexp_by_class(self, values: torch.Tensor) -> torch.Tensor:
        """log Σ exp(values) over the support images of each class: values [b, q, s] → [b, q, n], -inf for classes
        that an episode does not have. Sums that float32 cannot hold keep their order."""
        labels = self.support_labels.clamp(min=0)[:, None, :].expand_as(values)
        values = values.masked_fill(~self.support_mask[:, None, :], ABSENT)
        shape = (*values.shape[:2], self.one_hot.shape[-1])
        largest = values.new_full(shape, ABSENT).scatter_reduce(2, labels, values.detach(), "amax")
        largest = largest.masked_fill(~self.present[:, None, :], 0.0)
        sums = values.new_zeros(shape).scatter_add(2, labels, (values - largest.gather(2, labels)).exp())
        sums = sums.masked_fill(~self.present[:, None, :], 1.0)  # their logarithm has no gradient at zero
        return self.mask_absent(sums.log() + largest)

    def mask_absent(self, scores: torch.Tensor) -> torch.Tensor:
        """The scores [b, q, n] with -inf for classes that an episode does not have."""
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
        """The batch with features of unit length; zero stays zero."""
        return replace(self, support=unit(self.support), query=unit(self.query), products=None)


def unit(features: torch.Tensor) -> torch.Tensor:
    """Features [..., d] scaled to unit length; zero stays zero."""
    return F.normalize(features, dim=-1, eps=1e-15)


def guess_prior(batch: FeatureBatch) -> Prior:
    """A prior [b, 1, d] from the support sets alone, for learners without meta-train features.

    Variances are the same for all dimensions. If all classes have one shot, nothing is known about the variance
    within classes: it is assumed to be half of the total. Where the images of a class are copies, `within` is a
    thousandth of the total variance and a millionth of the mean square of the support.
    """
    real, d = batch.support_mask[..., None], batch.support.shape[-1]
    count = real.sum(1, keepdim=True)
    mean = batch.support.sum(1, keepdim=True) / count
    total = ((batch.support - mean) * real).square().sum((1, 2), keepdim=True) / d
    residual = (batch.support - batch.one_hot @ batch.class_means).square().sum((1, 2), keepdim=True) / d
    spare = count - batch.ways[:, None, None]
    within = torch.where(spare > 0, residual / spare.clamp(min=1), total / (2 * count))
    floor = 1e-6 * (batch.support * real).square().sum((1, 2), keepdim=True) / (count * d) + 1e-20
    within = torch.maximum(within, 1e-3 * total / count + floor)
    between = (total / count - within).clamp(min=0) + within * 0.1
    shape = (-1, -1, d)
    return Prior(mean, within.expand(shape), between.expand(shape))
