"""Maximum a posteriori with optimal transport (PT-MAP, Hu et al. 2021), for balanced queries."""

from __future__ import annotations

from dataclasses import replace

import torch

from autometa.heads.features import FeatureBatch, unit
from autometa.heads.joint import Joint

ROUNDS = 12
SINKHORN_ROUNDS = 2
LAST_SINKHORN_ROUNDS = 24
SCALING_ROUNDS = 2
"""Sinkhorn rounds in the linear domain before the potentials are updated in the log domain."""
LEAST_MASS = 1e-15
"""Smallest mass of a class, so that a few rounds of scaling stay within float32."""


def ot_map(
    batch: FeatureBatch, *, sharpness: float = 10.0, step: float = 0.4, cosine: bool = False
) -> torch.Tensor:
    """Scores [b, q, n]: log-probability of each class for a query, if all classes get the same number of queries.

    Support and query are centred separately and scaled to unit length. In each of `ROUNDS`, optimal transport
    assigns queries to classes by -sharpness·|f-c|², and each prototype c moves by `step` towards the mean of its
    images. A round starts from the potentials of the last one, so that few Sinkhorn rounds are enough. With `cosine`
    prototypes have unit length in that cost, which is then 2·sharpness·(1 - cos), as in the code of MetaDelta++.
    """
    joint = Joint.of(batch, centred=True)
    return joint.query_scores(batch, assign_by_transport(joint, sharpness, step, cosine=cosine))


def assign_by_transport(joint: Joint, sharpness: float, step: float, *, cosine: bool = False) -> torch.Tensor:
    """Log of the assignment [b, n, m] of queries to classes that `ot_map` ends with."""

    def logits(prototypes: torch.Tensor) -> torch.Tensor:
        ends = joint.normalise(prototypes) if cosine else prototypes
        return -sharpness * joint.distances(ends)

    prototypes = joint.class_means
    potential = torch.zeros_like(prototypes[..., :1])
    for _ in range(ROUNDS):
        plan, potential = transport(logits(prototypes), joint, potential, SINKHORN_ROUNDS)
        prototypes = prototypes + step * (
            joint.means_with(plan.exp() * joint.query_mask[:, None, :]) - prototypes
        )
    return transport(logits(prototypes), joint, potential, LAST_SINKHORN_ROUNDS)[0]


def without_transport(
    batch: FeatureBatch, *, sharpness: float = 10.0, step: float = 0.4, cosine: bool = False
) -> torch.Tensor:
    """Scores [b, q, n] of the inductive counterpart: log softmax of -sharpness·|f-c|², all features centred on the
    support. `step` has no effect."""
    real = batch.support_mask[..., None]
    centre = batch.support.sum(1, keepdim=True) / real.sum(1, keepdim=True)
    batch = replace(batch, support=(batch.support - centre) * real, query=batch.query - centre).unit()
    means = unit(batch.class_means) if cosine else batch.class_means
    logits = 2 * batch.query @ means.transpose(1, 2) - means.square().sum(-1)[:, None, :]
    return batch.mask_absent(sharpness * logits).log_softmax(-1)


def transport(
    logits: torch.Tensor, joint: Joint, potential: torch.Tensor, rounds: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The log of the transport plan [b, n, m], and the potentials [b, n, 1] of the classes that give it.

    The plan is exp(logits) scaled by rows and columns so that each query sums to 1 and each class to queries / ways,
    by `rounds` of Sinkhorn's algorithm, stabilised in the log domain (Cuturi 2013). `potential` [b, n, 1] holds the
    log-factors of the classes to start from.
    """
    mass = (joint.query_mask.sum(-1) / joint.present.sum(-1)).clamp(min=LEAST_MASS)[:, None, None]
    mask = joint.query_mask[..., None]
    logits = logits.masked_fill(~joint.present[..., None], float("-inf"))
    done = 0
    while done < rounds:
        plan = logits + potential
        kernel = (plan - plan.amax(1, keepdim=True)).exp()
        factor = torch.ones_like(potential)
        for _ in range(min(SCALING_ROUNDS, rounds - done)):
            rows = kernel.transpose(1, 2) @ factor
            columns = factor * (kernel @ (mask / rows))
            factor = factor * mass / columns.clamp(min=LEAST_MASS)
            done += 1
        potential = (potential + factor.log()).masked_fill(~joint.present[..., None], 0.0)
    return (logits + potential).log_softmax(1), potential
