"""Support and query images together, for transductive heads.

The prototypes of such heads are weighted sums of the m = s + q images of an episode. So a prototype is stored as its
m coefficients, and only the m × m Gram matrix of the features is needed: a round costs n·m², whatever the dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.solve import look_up_products, support_products

ROUNDING = 1e-6
"""A squared length below this share of its value before centring counts as zero in float32."""


def _centre(products: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Inner products [b, m, k] of two sets of features → those of the features less the mean of their set.

    `rows` and `columns` [b, 1, 1] are the sizes of the sets; padded features are zero.
    """
    over_rows = products.sum(1, keepdim=True) / rows
    over_columns = products.sum(2, keepdim=True) / columns
    return products - over_rows - over_columns + over_rows.sum(2, keepdim=True) / columns


def _compute_products(batch: FeatureBatch) -> list[torch.Tensor]:
    """Inner products of support with support, support with query and query with query; zero for padding."""
    s, both = batch.support.shape[1], look_up_products(batch)
    if both is None:
        return [*support_products(batch), batch.query @ batch.query.transpose(1, 2)]
    return [both[:, :s, :s], both[:, :s, s:], both[:, s:, s:]]


@dataclass(frozen=True)
class Joint:
    """All images of b episodes, support first.

    `gram` float32 [b, m, m], their inner products; `labels` [b, n, m], one-hot for the support, zero for queries;
    `query_mask` float32 [b, m], one for queries that are not padding; `present` bool [b, n], the classes of an
    episode.
    """

    gram: torch.Tensor
    labels: torch.Tensor
    query_mask: torch.Tensor
    present: torch.Tensor

    @classmethod
    def of(cls, batch: FeatureBatch, *, centred: bool = False) -> Joint:
        """The images of a batch, scaled to unit length; if `centred`, after subtracting the mean of the support from
        the support and that of the query from the query.

        Both steps change the inner products, which costs less than changing the features. Zero stays zero.
        """
        counts = [
            real.sum(1).clamp(min=1)[:, None, None].to(batch.support.dtype)
            for real in (batch.support_mask, batch.query_mask)
        ]
        parts = _compute_products(batch)
        energy = torch.cat([parts[0].diagonal(dim1=1, dim2=2), parts[2].diagonal(dim1=1, dim2=2)], dim=1)
        if centred:
            pairs = ((counts[0], counts[0]), (counts[0], counts[1]), (counts[1], counts[1]))
            parts = [_centre(part, *pair) for part, pair in zip(parts, pairs, strict=True)]
        gram = torch.cat(
            [torch.cat(parts[:2], dim=2), torch.cat([parts[1].transpose(1, 2), parts[2]], dim=2)], dim=1
        )
        length = gram.diagonal(dim1=1, dim2=2)
        # a feature that equals the mean leaves only rounding errors after centring
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
        """Coefficients [b, n, m] of the means of support images and of queries with `weights` [b, n, m]."""
        total = self.labels + weights
        return total / total.sum(-1, keepdim=True).clamp(min=1e-6)

    def normalise(self, prototypes: torch.Tensor) -> torch.Tensor:
        """Coefficients [b, n, m] of prototypes of unit length; zero stays zero."""
        square = ((prototypes @ self.gram) * prototypes).sum(-1, keepdim=True)
        return prototypes * square.clamp(min=1e-30).rsqrt()

    def distances(self, prototypes: torch.Tensor) -> torch.Tensor:
        """Squared distances [b, n, m] of prototypes, given by coefficients [b, n, m], to all images."""
        products = prototypes @ self.gram
        square = (products * prototypes).sum(-1, keepdim=True)
        own = self.gram.diagonal(dim1=1, dim2=2)[:, None, :]
        return (own + square - 2 * products).clamp(min=0)

    def softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [b, n, m] → probabilities over the classes of an episode; zero for the support and for padding."""
        logits = logits.masked_fill(~self.present[..., None], float("-inf"))
        return logits.softmax(1) * self.query_mask[:, None, :]

    def query_scores(self, batch: FeatureBatch, scores: torch.Tensor) -> torch.Tensor:
        """The scores [b, q, n] of the queries, out of those of all images [b, n, m]."""
        return batch.mask_absent(scores[..., batch.support.shape[1] :].transpose(1, 2))
