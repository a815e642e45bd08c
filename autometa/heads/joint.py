"""Support and query seen together, for transductive heads.

Their prototypes never leave the span of the images, so a prototype is held as its coefficients over the
m = s + q images of the episode, and all that is ever needed of the features is their m × m Gram matrix:
a round costs n·m² and no longer depends on the dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autometa.heads.features import FeatureBatch

ROUNDING = 1e-6
"""Share of a squared length in float32 that counts as nothing."""


def _doubly_centred(products: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Inner products [b, m, k] of two sets of features, each less its mean over so many `rows` and `columns`
    [b, 1, 1]; padded features are zero."""
    over_rows = products.sum(1, keepdim=True) / rows
    over_columns = products.sum(2, keepdim=True) / columns
    return products - over_rows - over_columns + over_rows.sum(2, keepdim=True) / columns


def _products(batch: FeatureBatch) -> list[torch.Tensor]:
    """Inner products of support with support, support with query and query with query; zero for padding."""
    if batch.products is None:
        support, query = batch.support, batch.query
        return [
            support @ support.transpose(1, 2),
            support @ query.transpose(1, 2),
            query @ query.transpose(1, 2),
        ]
    s = batch.support.shape[1]
    both = batch.products()
    real = torch.cat([batch.support_mask, batch.query_mask], dim=1).to(both.dtype)
    both = both * real[:, :, None] * real[:, None, :]
    return [both[:, :s, :s], both[:, :s, s:], both[:, s:, s:]]


@dataclass(frozen=True)
class Joint:
    """All images of b episodes, support first: `gram` float32 [b, m, m], the `labels` of the support as
    one-hot [b, n, m] (zero for queries), `query_mask` float32 [b, m] (one for queries that are images)."""

    gram: torch.Tensor
    labels: torch.Tensor
    query_mask: torch.Tensor
    present: torch.Tensor

    @classmethod
    def of(cls, batch: FeatureBatch, *, centred: bool = False) -> Joint:
        """The batch's inner products after scaling every feature to unit length, and, where `centred`, after
        taking from support and query each its own mean; what is zero by then stays zero.

        Both are done to the inner products: a pass over them costs less than one over the features.
        """
        counts = [
            real.sum(1).clamp(min=1)[:, None, None].to(batch.support.dtype)
            for real in (batch.support_mask, batch.query_mask)
        ]
        parts = _products(batch)
        energy = torch.cat([parts[0].diagonal(dim1=1, dim2=2), parts[2].diagonal(dim1=1, dim2=2)], dim=1)
        if centred:
            pairs = ((counts[0], counts[0]), (counts[0], counts[1]), (counts[1], counts[1]))
            parts = [_doubly_centred(part, *pair) for part, pair in zip(parts, pairs, strict=True)]
        gram = torch.cat(
            [torch.cat(parts[:2], dim=2), torch.cat([parts[1].transpose(1, 2), parts[2]], dim=2)], dim=1
        )
        length = gram.diagonal(dim1=1, dim2=2)
        # what is left of a feature after centring may be nothing but rounding
        real = torch.cat([batch.support_mask, batch.query_mask], dim=1) & (
            length > (ROUNDING if centred else 0) * energy
        )
        scale = length.clamp(min=1e-30).rsqrt() * real
        gram = gram * scale[:, :, None] * scale[:, None, :]
        s, q = batch.support.shape[1], batch.query.shape[1]
        labels = torch.nn.functional.pad(batch.one_hot, (0, 0, 0, q)).transpose(1, 2)
        asked = torch.nn.functional.pad(batch.query_mask.to(gram.dtype), (s, 0))
        return cls(gram, labels.contiguous(), asked, batch.present)

    @property
    def class_means(self) -> torch.Tensor:
        """Coefficients [b, n, m] of the mean support image of each class."""
        return self.labels / self.labels.sum(-1, keepdim=True).clamp(min=1)

    def means_with(self, weights: torch.Tensor) -> torch.Tensor:
        """Coefficients [b, n, m] of the class means where queries count by `weights` [b, n, m]."""
        total = self.labels + weights
        return total / total.sum(-1, keepdim=True).clamp(min=1e-6)

    def distances(self, prototypes: torch.Tensor) -> torch.Tensor:
        """Squared distances [b, n, m] of all images to prototypes given by coefficients [b, n, m]."""
        products = prototypes @ self.gram
        square = (products * prototypes).sum(-1, keepdim=True)
        own = self.gram.diagonal(dim1=1, dim2=2)[:, None, :]
        return (own + square - 2 * products).clamp(min=0)

    def softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities [b, n, m] over the classes that an episode has; zero for all but real queries."""
        logits = logits.masked_fill(~self.present[..., None], float("-inf"))
        return logits.softmax(1) * self.query_mask[:, None, :]

    def query_scores(self, batch: FeatureBatch, scores: torch.Tensor) -> torch.Tensor:
        """Scores [b, q, n] of the queries out of [b, n, m]."""
        return batch.mask_absent(scores[..., batch.support.shape[1] :].transpose(1, 2))
