"""What modes do to the inner products of an episode before its queries are assigned: `keep`, `whiten_task` and
`adapt_to_support`. Several modes and episodes can be refined as one batch; each is refined on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from autometa.heads.joint import Joint

ADAPT_STEPS, COSINE_SCALE = 15, 10.0
MOMENTUM, SQUARE_MOMENTUM, LEAST_ROOT = 0.9, 0.999, 1e-8
"""Of Adam: of its two running means, and what is added to the root of the second."""
LEAST_EIGENVALUE = 1e-5
"""Directions of the support with less than this share of the largest eigenvalue are left as they are."""
LEAST_LENGTH = 1e-12
"""A shorter vector counts as this long where it is divided by its length."""


@dataclass(frozen=True)
class Refinement:
    """Numbers that all modes share: the `sharpness` and the `step` of the transport; `zca_shrinkage`, the share of an
    eigenvalue itself, beside the mean of all, that whitening a task divides it by; `adapt_rate` of Adam."""

    sharpness: float = 15.0
    step: float = 0.4
    zca_shrinkage: float = 0.1
    adapt_rate: float = 0.02


DEFAULT_REFINEMENT = Refinement()
Refine = Callable[[Joint, Refinement], Joint]


def keep(joint: Joint, refinement: Refinement) -> Joint:
    """The inner products as they are."""
    return joint


def whiten_task(joint: Joint, refinement: Refinement = DEFAULT_REFINEMENT) -> Joint:
    """Inner products after whitening the images of each episode as far as they say: an eigenvalue λ of m images
    becomes λ / (a·λ/m + (1 - a)·mean eigenvalue/m), with a = `zca_shrinkage`; then unit length.

    That is (a·G + (1 - a)·mean·I)⁻¹·G·m for inner products G, so no eigenvectors are needed. The system is well
    conditioned: the largest eigenvalue is at most m times the mean.
    """
    real = (joint.labels.sum(1) + joint.query_mask) > 0
    m = real.sum(1).clamp(min=1).to(joint.gram.dtype)
    mean = joint.gram.diagonal(dim1=1, dim2=2).sum(1) / m
    share = refinement.zca_shrinkage
    system = share * joint.gram
    system.diagonal(dim1=1, dim2=2).add_(((1 - share) * mean).clamp(min=1e-12)[:, None])
    whitened = torch.cholesky_solve(joint.gram, torch.linalg.cholesky_ex(system).L)
    return _with_unit_length(joint, whitened * m[:, None, None])


def adapt_to_support(joint: Joint, refinement: Refinement = DEFAULT_REFINEMENT) -> Joint:
    """Inner products after a linear map of the span of the support that `ADAPT_STEPS` steps of Adam train, from the
    identity on, to classify the support by its class means (cosine). Episodes with one image a class stay as they
    are: there an image is its class mean."""
    several = joint.labels.sum(-1).amax(1) > 1
    if not bool(several.any()):
        return joint
    s = int((joint.labels.sum(1) > 0).sum(1).max())
    coordinates = _support_coordinates(joint.gram, s)
    weights = _train_map(coordinates[:, :s], joint.labels[:, :, :s], joint.present, refinement.adapt_rate)
    moved = coordinates @ weights.transpose(1, 2)
    gram = joint.gram + moved @ moved.transpose(1, 2) - coordinates @ coordinates.transpose(1, 2)
    return _with_unit_length(joint, torch.where(several[:, None, None], gram, joint.gram))


def _support_coordinates(gram: torch.Tensor, s: int) -> torch.Tensor:
    """Coordinates [b, m, s] of all images in an orthonormal basis of the span of the first `s`."""
    values, vectors = torch.linalg.eigh(gram[:, :s, :s].double())
    kept = values > LEAST_EIGENVALUE * values[:, -1:]
    basis = vectors * torch.where(kept, values.clamp(min=1e-30).rsqrt(), 0.0)[:, None, :]
    coordinates: torch.Tensor = gram[:, :, :s] @ basis.to(gram.dtype)
    return coordinates


def _train_map(
    coordinates: torch.Tensor, labels: torch.Tensor, present: torch.Tensor, rate: float
) -> torch.Tensor:
    """The map [b, s, s] that Adam trains on the coordinates [b, s, s] of the support, with its labels [b, n, s]."""
    weights = torch.eye(coordinates.shape[2], dtype=coordinates.dtype, device=coordinates.device)
    weights = weights.repeat(len(coordinates), 1, 1)
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    loss = _SupportLoss.of(coordinates, labels, present)
    for step in range(1, ADAPT_STEPS + 1):
        gradient = loss.gradient(weights)
        mean.lerp_(gradient, 1 - MOMENTUM)
        square.mul_(SQUARE_MOMENTUM).addcmul_(gradient, gradient, value=1 - SQUARE_MOMENTUM)
        unbiased = (1 - SQUARE_MOMENTUM**step) ** 0.5
        step_size = rate * unbiased / (1 - MOMENTUM**step)
        weights.addcdiv_(mean, square.sqrt().add_(LEAST_ROOT * unbiased), value=-step_size)
    return weights


@dataclass(frozen=True)
class _SupportLoss:
    """The mean cross-entropy of the support of each episode, where logits are `COSINE_SCALE` times the cosines with
    the sums of the moved images of each class.

    `coordinates` [b, s, s] and `labels` [b, n, s] of the support; `bias` [b, 1, n], -inf for absent classes; `weight`
    [b, s, 1], `COSINE_SCALE` over the number of images, zero for padding; `target` [b, s, n], the labels times the
    negative weight.
    """

    coordinates: torch.Tensor
    labels: torch.Tensor
    bias: torch.Tensor
    weight: torch.Tensor
    target: torch.Tensor

    @classmethod
    def of(cls, coordinates: torch.Tensor, labels: torch.Tensor, present: torch.Tensor) -> _SupportLoss:
        bias = torch.zeros_like(labels[:, :, 0]).masked_fill(~present, float("-inf"))[:, None, :]
        weight = (COSINE_SCALE / labels.sum((1, 2), keepdim=True)) * labels.sum(1)[:, :, None]
        return cls(coordinates, labels, bias, weight, -weight * labels.transpose(1, 2))

    def gradient(self, weights: torch.Tensor) -> torch.Tensor:
        """Derivative [b, s, s] by the weights [b, s, s] of the map."""
        moved, length = _normalize(self.coordinates @ weights.transpose(1, 2))
        sums, size = _normalize(self.labels @ moved)
        logits = torch.baddbmm(self.bias, moved, sums.transpose(1, 2), alpha=COSINE_SCALE)
        error = torch.addcmul(self.target, logits.softmax(2), self.weight)
        by_sums = _through_normalize(error.transpose(1, 2) @ moved, sums, size)
        by_moved = torch.baddbmm(error @ sums, self.labels.transpose(1, 2), by_sums)
        return _through_normalize(by_moved, moved, length).transpose(1, 2) @ self.coordinates


def _normalize(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [b, k, s] at unit length, and their lengths [b, k, 1]."""
    length = torch.linalg.vector_norm(rows, dim=2, keepdim=True).clamp_(min=LEAST_LENGTH)
    return rows / length, length


def _through_normalize(gradient: torch.Tensor, unit: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Derivative by rows [b, k, s] of such a `length`, from that by the `unit` rows that they became."""
    along = torch.linalg.vecdot(gradient, unit)[:, :, None]
    return torch.addcmul(gradient, along, unit, value=-1).div_(length)


def _with_unit_length(joint: Joint, gram: torch.Tensor) -> Joint:
    length = gram.diagonal(dim1=1, dim2=2)
    scale = torch.where(length > 1e-12, length.clamp(min=1e-12).rsqrt(), 0.0)
    return replace(joint, gram=gram * scale[:, :, None] * scale[:, None, :])
