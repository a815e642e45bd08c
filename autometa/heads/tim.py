"""Transductive information maximisation (TIM and α-TIM)."""

from __future__ import annotations

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.joint import Joint

MOMENTUM = 0.9
LEAST = 1e-8


def tim(
    batch: FeatureBatch,
    *,
    sharpness: float = 10.0,
    alpha: float = 1.0,
    confidence: float = 0.3,
    rate: float = 0.05,
    steps: int = 60,
) -> torch.Tensor:
    """Scores [b, q, n]: -sharpness·|f-c|² on features of unit length, where gradient steps have moved the
    prototypes c to lower the cross-entropy of the support less the mutual information of queries and
    classes, H(mean p) - confidence·mean H(p).

    H is Shannon's entropy for `alpha` = 1 (TIM, Boudiaf et al. 2020), which prefers equal classes; with
    another `alpha` it is Tsallis', which allows for unequal ones (α-TIM, Veilleux et al. 2021). Without
    steps: nearest centroid.
    """
    joint = Joint.of(batch)
    prototypes = joint.class_means
    speed = torch.zeros_like(prototypes)
    for _ in range(steps):
        logits = -sharpness * joint.distances(prototypes)
        pull = _slope(joint, logits, alpha, confidence)
        # d(-|f-c|²)/dc = 2(f-c); rate and sharpness are left to `rate`
        gradient = pull - pull.sum(-1, keepdim=True) * prototypes
        speed = MOMENTUM * speed - rate * gradient * joint.present.sum(-1)[:, None, None]
        prototypes = prototypes + speed
    return joint.query_scores(batch, -sharpness * joint.distances(prototypes))


def _slope(joint: Joint, logits: torch.Tensor, alpha: float, confidence: float) -> torch.Tensor:
    """Derivative [b, n, m] of the loss in the logits."""
    logits = logits.masked_fill(~joint.present[..., None], float("-inf"))
    p = logits.softmax(1).clamp(min=LEAST) * joint.present[..., None]
    own = (p * joint.labels).sum(1, keepdim=True).clamp(min=LEAST)
    shown = joint.labels.sum((1, 2))[:, None, None]
    cross_entropy = own ** (alpha - 1) * (p * joint.labels.sum(1, keepdim=True) - joint.labels) / shown
    asked = joint.query_mask[:, None, :] / joint.query_mask.sum(-1)[:, None, None].clamp(min=1)
    marginal = (p * asked).sum(-1, keepdim=True)
    wanted = confidence * entropy_slope(p, alpha) - entropy_slope(marginal, alpha)
    return cross_entropy + asked * p * (wanted - (p * wanted).sum(1, keepdim=True))


def entropy_slope(p: torch.Tensor, alpha: float) -> torch.Tensor:
    """Derivative of the entropy in each probability, up to a constant."""
    if alpha == 1:
        return -p.clamp(min=LEAST).log()
    return -alpha / (alpha - 1) * p ** (alpha - 1)
