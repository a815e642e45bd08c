"""Class means of one support set, kept: what it takes to answer single images with no work but their own.

The counterpart of optimal transport compares centred features of unit length with class means. All that depends on
the support alone is computed once, here; a query then costs a product with one vector for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from autometa.heads.modes import Key, collect_keys, find_mode


@dataclass(frozen=True)
class ClassMeans:
    """Directions [d, n + 1] of n class means and, last, of the centre of the support; their inner products with the
    centre [n], their squared lengths [n], and that of the centre. `raised` is added to the squared length of every
    image, as `factor_products` does."""

    directions: torch.Tensor
    by_centre: torch.Tensor
    squares: torch.Tensor
    centre_square: float
    raised: float = 0.0

    @classmethod
    def of(cls, support: torch.Tensor, labels: torch.Tensor, ways: int, raised: float = 0.0) -> ClassMeans:
        """Of support features float32 [s, d] with labels int64 [s] in 0..ways-1; images that are not finite count as
        zero."""
        rows = zero_unless_finite(support).double()
        gram = rows @ rows.T
        gram.diagonal().add_(raised)
        s = len(rows)
        centred = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
        lengths = centred.diagonal().clamp(min=0).sqrt()
        scale = torch.where(lengths > 0, 1 / lengths.clamp(min=1e-30), 0.0)
        of_class = torch.nn.functional.one_hot(labels, ways).T.to(rows)
        shares = of_class / of_class.sum(1, keepdim=True).clamp(min=1) * scale
        shares = shares - shares.sum(1, keepdim=True) / s  # of images that are not centred
        directions = torch.cat([shares @ rows, rows.mean(0, keepdim=True)])
        return cls(
            directions.T.float().contiguous(),
            (shares @ gram).mean(1).float(),
            ((shares @ gram) * shares).sum(1).float(),
            float(gram.mean()),
            raised,
        )

    def scores(self, query: torch.Tensor, sharpness: float) -> torch.Tensor:
        """Log-probabilities [q, n] of query features float32 [q, d]: what `without_transport` gives."""
        query = zero_unless_finite(query)
        products = query @ self.directions
        along, own = products[:, -1:], query.square().sum(1, keepdim=True) + self.raised
        length = (own - 2 * along + self.centre_square).clamp(min=1e-20).sqrt()
        logits = 2 * (products[:, :-1] - self.by_centre) / length - self.squares
        return (sharpness * logits).log_softmax(-1)


@dataclass(frozen=True)
class SupportMeans:
    """The class means of one support set after the metrics of some modes."""

    names: tuple[str, ...]
    means: Mapping[Key, ClassMeans]
    sharpness: float

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        support: Mapping[Key, torch.Tensor],
        labels: torch.Tensor,
        *,
        sharpness: float,
        raised: float = 0.0,
    ) -> SupportMeans:
        """Of support features [s, d] for each key that the modes of these names ask for, with labels int64 [s] in
        0..ways-1, each of which occurs."""
        ways = int(labels.max()) + 1
        means = {key: ClassMeans.of(support[key], labels, ways, raised) for key in collect_keys(names)}
        return cls(tuple(names), means, sharpness)

    def answer(self, query: Mapping[Key, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities [modes, q, n] of query features [q, d] for each key: what `answer_alone` gives."""
        known = {key: means.scores(query[key], self.sharpness) for key, means in self.means.items()}
        by_mode = [torch.stack([known[key] for key in find_mode(name).keys]).mean(0) for name in self.names]
        return torch.stack(by_mode).log_softmax(-1)


def zero_unless_finite(rows: torch.Tensor) -> torch.Tensor:
    """The rows [n, d], those with a value that is no number as zeros."""
    good = rows.isfinite().all(1, keepdim=True)
    return rows if bool(good.all()) else torch.where(good, rows, 0.0)
