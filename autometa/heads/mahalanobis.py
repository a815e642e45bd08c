"""Mahalanobis distance with a covariance per class, shrunk towards that of the whole support (Simple CNAPS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from autometa.heads.features import FeatureBatch
from autometa.heads.solve import find_members, solve_shifted, support_products


@dataclass(frozen=True)
class Classes:
    """The support images of each class, in k places, and what classes with as many images share.

    `order` int64 [b, n, k], the rows of the images in the support; `kept` [b, n, k], one for places that hold an
    image, else zero. Classes with as many images have the same covariance but for the term of their own: it is
    computed once for each of the l `sizes` [b, l] that an episode has; `level` int64 [b, n] says which size a class
    has, the largest one first.
    """

    order: torch.Tensor
    kept: torch.Tensor
    sizes: torch.Tensor
    level: torch.Tensor

    @classmethod
    def of(cls, batch: FeatureBatch) -> Classes:
        """The classes of a batch; classes that an episode does not have hold no image."""
        order, kept = find_members(batch)
        shots = batch.shots
        # absent classes join the largest size, so that they add none
        counted = torch.where(shots > 0, shots, shots.amax(1, keepdim=True))
        ranked, places = counted.sort(dim=1, descending=True)
        rank = F.pad((ranked.diff(dim=1) != 0).cumsum(1), (1, 0))
        sizes = ranked[:, :1].repeat(1, int(rank.max()) + 1).scatter(1, rank, ranked)
        return cls(order, kept.to(shots.dtype), sizes, torch.empty_like(rank).scatter(1, places, rank))

    def rows(self, products: torch.Tensor) -> torch.Tensor:
        """The rows [b, n, k, q] of the images of each class, out of products [b, l, s, q] for each size; zero for
        empty places."""
        episode = torch.arange(len(products), device=products.device)[:, None, None]
        return products[episode, self.level[..., None], self.order] * self.kept[..., None]

    def blocks(self, products: torch.Tensor) -> torch.Tensor:
        """The rows and columns [b, n, k, k] of the images of each class, out of products [b, l, s, s]; zero for empty
        places."""
        episode = torch.arange(len(products), device=products.device)[:, None, None, None]
        picked = products[
            episode, self.level[..., None, None], self.order[..., None], self.order[:, :, None, :]
        ]
        return picked * self.kept[..., None] * self.kept[:, :, None, :]


def mahalanobis(batch: FeatureBatch, *, ridge: float, own: float = 1.0) -> torch.Tensor:
    """Scores [b, q, n]: -½(f-c)ᵀ[a·S_n + (1-a)·S_all + b·I]⁻¹(f-c) with a = own·k/(k+1) (Bateni et al. 2020), less a
    part that is the same for all classes.

    b is `ridge` times the total variance of the support, so that the scale of features has no effect. `own` = 0 gives
    linear discriminants with the covariance of all support images. What classes share is inverted once, by the inner
    products of images; S_n, whose rank is below k, is added by Woodbury's identity.
    """
    classes = Classes.of(batch)
    share = own * classes.sizes / (classes.sizes + 1)
    among, towards, weight = _shared_products(batch, share, ridge)
    distance = _from_largest(towards, weight, classes.level) if weight.shape[1] > 1 else 0.0
    among, towards = classes.blocks(among), classes.rows(towards)
    # the class mean is a mean of images, so products with it are means of products
    shots = batch.shots.clamp(min=1)[..., None, None]
    to_mean = among.sum(3, keepdim=True) / shots
    square, to_query = to_mean.sum(2, keepdim=True) / shots, towards.sum(2, keepdim=True) / shots
    distance = distance + (square - 2 * to_query)[:, :, 0]
    if own != 0:
        kept = classes.kept[..., None]
        spread = (among - to_mean - to_mean.transpose(2, 3) + square) * kept * kept.transpose(2, 3)
        difference = (towards - to_query - to_mean + square) * kept
        own_share = own * shots / (shots + 1) / (shots - 1).clamp(min=1)
        distance = distance - _explained(spread * own_share, difference * own_share.sqrt())
    return batch.mask_absent(-distance.transpose(1, 2) / 2)


def _shared_products(
    batch: FeatureBatch, share: torch.Tensor, ridge: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inner products by [(1-a)·S_all + b·I]⁻¹, for each a in `share` [b, l], of support images less their mean with
    each other, [b, l, s, s], and with the queries less the same mean, [b, l, s, q]; and the weight (1-a)/(m-1) of
    the scatter matrix of m images, [b, l].

    With centred images X, X[c·XᵀX + b·I]⁻¹ = (c·XXᵀ + b·I)⁻¹X: the system is s × s, or d × d if the dimension d is
    less than s.
    """
    support, query = batch.support, batch.query
    real = batch.support_mask[..., None].to(support.dtype)
    count = real.sum(1, keepdim=True)
    primal = support.shape[2] < support.shape[1]
    if primal:
        centre = support.sum(1, keepdim=True) / count
        support = (support - centre) * real
        system, right = (
            support.transpose(1, 2) @ support,
            torch.cat([support, query - centre], 1).transpose(1, 2),
        )
    else:
        system, cross = _centred_products(batch)
        right = torch.cat([system, cross], dim=2)
    spare = (count[:, 0] - 1).clamp(min=1)
    variance = system.diagonal(dim1=1, dim2=2).sum(1, keepdim=True).clamp(min=0) / spare
    # identical support images have no variance: add a little, in proportion to their squares, to keep it invertible
    length = (batch.support * real).flatten(1).norm(dim=1, keepdim=True)
    floor = 1e-6 * length.square() / count[:, 0] + 1e-20
    weight = (1 - share) / spare
    products = solve_shifted(
        system[:, None], (ridge * variance + floor) / weight, right[:, None] / weight[..., None, None]
    )
    if primal:
        products = support[:, None] @ products
    s = support.shape[1]
    return products[..., :s], products[..., s:], weight


def _centred_products(batch: FeatureBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products [b, s, s] of support images less their mean, and [b, s, q] of these with queries less the same
    mean; zero for padded support."""
    real = batch.support_mask[..., None].to(batch.support.dtype)
    count = real.sum(1, keepdim=True)
    gram, cross = support_products(batch)
    to_mean = gram.sum(2, keepdim=True) / count
    square = to_mean.sum(1, keepdim=True) / count
    gram = (gram - to_mean - to_mean.transpose(1, 2) + square) * real * real.transpose(1, 2)
    return gram, (cross - cross.sum(1, keepdim=True) / count - to_mean + square) * real


def _from_largest(towards: torch.Tensor, weight: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """How much longer queries are [b, n, q] by the inverse that each class shares with classes of its size than by
    that of the largest classes.

    B⁻¹ - A⁻¹ = B⁻¹(A - B)A⁻¹, and A - B is a multiple of the scatter matrix, so that `towards` [b, l, s, q] is
    enough.
    """
    longer = (weight[:, :1] - weight)[..., None] * (towards * towards[:, :1]).sum(2)
    return longer.gather(1, level[..., None].expand(-1, -1, longer.shape[2]))


def _explained(spread: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """By how much the own covariance of classes shortens squared distances, [b, n, q]: vᵀ(I + spread)⁻¹v of the
    columns v of `difference` [b, n, k, q], with `spread` [b, n, k, k]."""
    identity = torch.eye(spread.shape[2], dtype=spread.dtype, device=spread.device)
    factor = torch.linalg.cholesky_ex(spread + identity).L
    whitened: torch.Tensor = torch.linalg.solve_triangular(factor, difference, upper=False)
    return whitened.square().sum(2)
