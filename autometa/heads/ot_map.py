"""Maximum a posteriori with optimal transport (PT-MAP, Hu et al. 2021), for balanced queries."""

from __future__ import annotations

from dataclasses import replace

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.joint import Joint

ROUNDS = 12
SINKHORN_ROUNDS = 2
LAST_SINKHORN_ROUNDS = 24
SCALING_ROUNDS = 2
"""Rounds between two visits of the log domain."""
LEAST_MASS = 1e-15
"""Of a class, so that a few rounds of scaling stay within float32."""


def ot_map(batch: FeatureBatch, *, sharpness: float = 10.0, step: float = 0.4) -> torch.Tensor:
    """Scores [b, q, n]: log of the share of each class in a query, where all classes get the same number of
    queries.

    Support and query are centred separately and scaled to unit length; then, in `ROUNDS`, queries are
    assigned by optimal transport under -sharpness·|f-c|², and every prototype c moves by `step` towards the
    mean of its images. The potentials of one round start the next one, so few Sinkhorn rounds do.
    """
    joint = Joint.of(batch, centred=True)
    prototypes = joint.class_means
    potential = torch.zeros_like(prototypes[..., :1])
    for _ in range(ROUNDS):
        logits = -sharpness * joint.distances(prototypes)
        plan, potential = transport(logits, joint, potential, SINKHORN_ROUNDS)
        prototypes = prototypes + step * (
            joint.means_with(plan.exp() * joint.query_mask[:, None, :]) - prototypes
        )
    logits = -sharpness * joint.distances(prototypes)
    plan, _ = transport(logits, joint, potential, LAST_SINKHORN_ROUNDS)
    return joint.query_scores(batch, plan)


def without_transport(batch: FeatureBatch, *, sharpness: float = 10.0, step: float = 0.4) -> torch.Tensor:
    """Scores [b, q, n] of the same model for a query alone: log softmax of -sharpness·|f-c|², centred on
    the support only. What `ot_map` falls back to; `step` plays no part."""
    real = batch.support_mask[..., None]
    centre = batch.support.sum(1, keepdim=True) / real.sum(1, keepdim=True)
    batch = replace(batch, support=(batch.support - centre) * real, query=batch.query - centre).unit()
    means = batch.class_means
    logits = 2 * batch.query @ means.transpose(1, 2) - means.square().sum(-1)[:, None, :]
    return batch.mask_absent(sharpness * logits).log_softmax(-1)


def transport(
    logits: torch.Tensor, joint: Joint, potential: torch.Tensor, rounds: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log of the plan [b, n, m] that is proportional to exp(logits) up to factors of rows and columns: each
    real query sums to one and each class to (queries / ways), after `rounds` of Sinkhorn's algorithm in the
    log domain (Cuturi 2013). `potential` [b, n, 1] are the log-factors of the classes to start with."""
    mass = (joint.query_mask.sum(-1) / joint.present.sum(-1)).clamp(min=LEAST_MASS)[:, None, None]
    asked = joint.query_mask[..., None]
    logits = logits.masked_fill(~joint.present[..., None], float("-inf"))
    done = 0
    while done < rounds:
        plan = logits + potential
        kernel = (plan - plan.amax(1, keepdim=True)).exp()
        factor = torch.ones_like(potential)
        for _ in range(min(SCALING_ROUNDS, rounds - done)):
            rows = kernel.transpose(1, 2) @ factor
            columns = factor * (kernel @ (asked / rows))
            factor = factor * mass / columns.clamp(min=LEAST_MASS)
            done += 1
        potential = (potential + factor.log()).masked_fill(~joint.present[..., None], 0.0)
    return (logits + potential).log_softmax(1), potential
