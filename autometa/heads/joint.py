"""Support and query seen together, for transductive heads.

Their prototypes never leave the span of the images, so a prototype is held as its coefficients over the
m = s + q images of the episode, and all that is ever needed of the features is their m × m Gram matrix:
a round costs n·m² and no longer depends on the dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autometa.heads.features import FeatureBatch


@dataclass(frozen=True)
class Joint:
    """All images of b episodes, support first: `gram` float32 [b, m, m], the `labels` of the support as
    one-hot [b, n, m] (zero for queries), `asked` float32 [b, m] (one for queries that are images)."""

    gram: torch.Tensor
    labels: torch.Tensor
    asked: torch.Tensor
    present: torch.Tensor

    @classmethod
    def of(cls, batch: FeatureBatch) -> Joint:
        """The batch's inner products after scaling every feature to unit length; zero stays zero."""
        everything = torch.cat([batch.support, batch.query], dim=1)
        gram = everything @ everything.transpose(1, 2)
        # scaled afterwards, since a pass over the Gram matrix costs less than one over the features
        real = torch.cat([batch.real, batch.asked], dim=1)
        scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-30).rsqrt() * real
        gram = gram * scale[:, :, None] * scale[:, None, :]
        s, q = batch.support.shape[1], batch.query.shape[1]
        labels = torch.nn.functional.pad(batch.one_hot, (0, 0, 0, q)).transpose(1, 2)
        asked = torch.nn.functional.pad(batch.asked.to(gram.dtype), (s, 0))
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
        return logits.softmax(1) * self.asked[:, None, :]

    def query_scores(self, batch: FeatureBatch, scores: torch.Tensor) -> torch.Tensor:
        """Scores [b, q, n] of the queries out of [b, n, m]."""
        return batch.mask_absent(scores[..., batch.support.shape[1] :].transpose(1, 2))
