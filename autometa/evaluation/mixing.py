"""Calibration and averaging of candidates: temperatures, then greedy forward selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import optimize

from autometa.evaluation.validation_episodes import Answer, RealQueries, ValidationEpisodes

LOG_TEMPERATURE = (-8.0, 4.0)
MOST_SLOPE = 1.5
LEAST_GAIN = 0.001
"""Of normalised accuracy on the validation episodes, for a further member."""
LEAST_PROBABILITY = 1e-12
"""Of a label, below which nothing is learned from how unlikely it was."""
MIXTURE_ROUNDS = 200
ENOUGH_QUERIES = 4000
"""To fit one temperature to."""
LEAST_LOG = -1e4
"""Of a probability: what is impossible to one member can be outvoted."""


def log_probabilities(scores: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """Log-softmax of scores [..., n] at a temperature (or several, of a shape that broadcasts); -inf stays."""
    return (scores / temperature).log_softmax(-1)


def at_temperature(scores: Sequence[torch.Tensor], temperature: float) -> list[torch.Tensor]:
    """Log-probabilities per batch of scores [b, q, n] per batch."""
    return [log_probabilities(batch, temperature) for batch in scores]


def calibrate(answer: Answer, validation: ValidationEpisodes) -> tuple[float, list[torch.Tensor]]:
    """The temperature that fits an answer best, and its log-probabilities per batch at that."""
    temperature = fit_temperature(answer, validation)
    return temperature, at_temperature(answer.scores, temperature)


def fit_temperature(answer: Answer, validation: ValidationEpisodes) -> float:
    """The temperature with the least cross-entropy on the validation queries (Guo et al. 2017)."""
    queries = validation.queries
    some = _enough_of(queries)
    rows, labels = queries.rows(answer.scores)[some], queries.labels[some]

    def loss(log_temperature: float) -> float:
        temperature = float(torch.tensor(log_temperature, dtype=torch.float64).exp())
        return float(F.cross_entropy(rows / temperature, labels))

    found = optimize.minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded", options={"xatol": 0.02})
    return float(torch.tensor(float(found.x)).exp())


def _enough_of(queries: RealQueries) -> slice:
    """Queries evenly spread over all of them, as many as it takes to fit a number or two."""
    return slice(None, None, max(len(queries.labels) // ENOUGH_QUERIES, 1))


@dataclass(frozen=True)
class ShotTemperature:
    """Temperature of an ensemble by the support images per class: exp(level + slope · log shots). A mean of
    log-probabilities is less sure than its members, the more so the more images each of them has seen."""

    level: float = 0.0
    slope: float = 0.0

    def __call__(self, log_p: torch.Tensor, shots: torch.Tensor | float) -> torch.Tensor:
        """Log-probabilities [..., q, n] of episodes with so many `shots` [...] each."""
        log_shots = torch.as_tensor(shots, dtype=log_p.dtype).log()
        return log_probabilities(log_p, (self.level + self.slope * log_shots).exp()[..., None, None])

    @classmethod
    def fit(cls, mixed: Sequence[torch.Tensor], validation: ValidationEpisodes) -> ShotTemperature:
        """The one with the least cross-entropy on the validation queries, given an ensemble's log-probabilities
        per batch; no slope where all episodes have as many shots."""
        queries = validation.queries
        some = _enough_of(queries)
        rows, labels = queries.rows(mixed)[some], queries.labels[some]
        of_query = [
            shots[:, None].expand(real.shape)[real]
            for shots, real in zip(validation.shots, queries.real, strict=True)
        ]
        log_shots = torch.cat(of_query)[some].log()
        spread = bool(log_shots.max() > log_shots.min())

        def loss(found: NDArray[np.float64]) -> float:
            inverse = (-found[0] - (found[1] if spread else 0.0) * log_shots).exp()
            return float(F.cross_entropy(rows * inverse[:, None], labels))

        bounds = [LOG_TEMPERATURE, (-MOST_SLOPE, MOST_SLOPE)]
        found = optimize.minimize(loss, np.zeros(2), method="Powell", bounds=bounds, options={"xtol": 0.02})
        level, slope = (float(value) for value in found.x)
        return cls(level, slope if spread else 0.0)


AS_IT_IS = ShotTemperature()


def average(log_p: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Weighted mean of log-probabilities [..., n] of several members, normalised again."""
    total = sum(weights)
    mixed = torch.stack(
        [p.clamp(min=LEAST_LOG) * (w / total) for p, w in zip(log_p, weights, strict=True)]
    ).sum(0)
    return mixed.log_softmax(-1)


def fit_mixture(calibrated: Sequence[Sequence[torch.Tensor]], validation: ValidationEpisodes) -> list[float]:
    """Weights, one per member and summing to one, with which the mean of the members' probabilities is most
    likely to give the labels of the validation queries; members are given as their log-probabilities per batch.
    The problem is convex; solved by expectation maximisation (Dempster et al. 1977)."""
    shares = []
    for member in calibrated:
        parts = []
        for log_p, labels in zip(member, validation.labels, strict=True):
            real = labels >= 0
            parts.append(log_p[real].gather(1, labels[real][:, None])[:, 0])
        shares.append(torch.cat(parts).double().exp())
    of_label = torch.stack(shares).clamp(min=LEAST_PROBABILITY)
    weights = torch.full((len(of_label), 1), 1 / len(of_label), dtype=torch.float64)
    for _ in range(MIXTURE_ROUNDS):
        joint = weights * of_label
        weights = (joint / joint.sum(0)).mean(1, keepdim=True)
    return [float(weight) for weight in weights]


def mixture(calibrated: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]) -> list[torch.Tensor]:
    """Log of the weighted mean of the probabilities of members, given as their log-probabilities per batch."""
    total = torch.tensor(weights, dtype=torch.float64).log() - torch.tensor(float(sum(weights))).log()
    return [
        torch.stack([log_p + share for log_p, share in zip(batch, total, strict=True)]).logsumexp(0)
        for batch in zip(*calibrated, strict=True)
    ]


def select(
    calibrated: Sequence[Sequence[torch.Tensor]],
    validation: ValidationEpisodes,
    affordable: Callable[[set[int]], bool],
    max_members: int,
) -> dict[int, int]:
    """Greedy forward selection with replacement (Caruana et al. 2004) among candidates, given as their
    log-probabilities per batch, best first. A step must gain `LEAST_GAIN`; the set of places must stay
    `affordable`. Returns the weight of each chosen place."""
    queries = validation.queries
    rows = torch.stack([queries.rows(member) for member in calibrated]).clamp(min=LEAST_LOG)
    weights, total = {0: 1}, rows[0]
    best = float(queries.accuracy(total))
    while sum(weights.values()) < 2 * max_members:
        grown = [weights | {place: weights.get(place, 0) + 1} for place in range(len(rows))]
        allowed = [len(one) <= max_members and affordable(set(one)) for one in grown]
        worth = queries.accuracy(total + rows)  # a sum has the same largest entry as the mean
        worth[~torch.tensor(allowed)] = -1.0
        place = int(worth.argmax())
        if float(worth[place]) - best < LEAST_GAIN:
            break
        weights, total, best = grown[place], total + rows[place], float(worth[place])
    return weights


def combine(calibrated: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]) -> list[torch.Tensor]:
    """Weighted average of members, given as their log-probabilities per batch."""
    return [average(batch, weights) for batch in zip(*calibrated, strict=True)]
