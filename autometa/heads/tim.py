"""Transductive information maximisation (TIM and α-TIM)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.joint import Joint
from autometa.heads.soft_kmeans import to_nearest_mean

STEPS, MOMENTUM = 60, 0.9
LEAST_PROBABILITY = 1e-8
"""Lower bound of probabilities in logarithms and powers."""


def tim(
    batch: FeatureBatch,
    *,
    sharpness: float = 10.0,
    alpha: float = 1.0,
    support_weight: float = 1.0,
    confidence: float = 0.3,
    rate: float = 0.05,
) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length.

    Gradient descent moves the prototypes c, from the class means, to minimise `support_weight` times the
    cross-entropy of the support minus the mutual information of queries and classes, H(mean p) - confidence·mean
    H(p). For `alpha` = 1, H is Shannon's entropy, which favours balanced classes (TIM, Boudiaf et al. 2020); for
    other values it is Tsallis' entropy, which allows unbalanced ones (α-TIM, Veilleux et al. 2021). `rate`: of
    `STEPS` of gradient descent.
    """
    joint = Joint.of(batch)
    prototypes = joint.class_means
    velocity = torch.zeros_like(prototypes)
    for _ in range(STEPS):
        logits = -sharpness * joint.distances(prototypes)
        slope = _loss_slope(joint, logits, alpha, (support_weight, confidence))
        # d(-|f-c|²)/dc = 2(f-c); the constant factors 2 and sharpness are part of `rate`
        gradient = slope - slope.sum(-1, keepdim=True) * prototypes
        velocity = MOMENTUM * velocity - rate * gradient * joint.present.sum(-1)[:, None, None]
        prototypes = prototypes + velocity
    return joint.query_scores(batch, -sharpness * joint.distances(prototypes))


def tim_without_queries(
    batch: FeatureBatch, *, sharpness: float = 10.0, support_weight: float = 1.0, confidence: float = 0.3
) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: -sharpness·|f-c|² with the class mean c. The other parameters
    have no effect."""
    return to_nearest_mean(batch, sharpness=sharpness)


def _loss_slope(
    joint: Joint, logits: torch.Tensor, alpha: float, weights: tuple[float, float]
) -> torch.Tensor:
    """Derivative [b, n, m] of the loss with respect to the logits; `weights` of the support and of confidence."""
    support_weight, confidence = weights
    logits = logits.masked_fill(~joint.present[..., None], float("-inf"))
    p = logits.softmax(1).clamp(min=LEAST_PROBABILITY) * joint.present[..., None]
    own = (p * joint.labels).sum(1, keepdim=True).clamp(min=LEAST_PROBABILITY)
    images = joint.labels.sum((1, 2))[:, None, None]
    cross_entropy = own ** (alpha - 1) * (p * joint.labels.sum(1, keepdim=True) - joint.labels) / images
    query_share = joint.query_mask[:, None, :] / joint.query_mask.sum(-1)[:, None, None].clamp(min=1)
    marginal = (p * query_share).sum(-1, keepdim=True)
    entropy_slopes = confidence * entropy_slope(p, alpha) - entropy_slope(marginal, alpha)
    return support_weight * cross_entropy + query_share * p * (
        entropy_slopes - (p * entropy_slopes).sum(1, keepdim=True)
    )


def entropy_slope(p: torch.Tensor, alpha: float) -> torch.Tensor:
    """Derivative of the entropy with respect to each probability, up to a constant."""
    if alpha == 1:
        return -p.clamp(min=LEAST_PROBABILITY).log()
    return -alpha / (alpha - 1) * p ** (alpha - 1)
