"""Ensembles: temperatures that calibrate their members, and means of their answers.

A member is given as its log-probabilities [b, q, n] per batch of the validation episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from autometa.evaluation.validation_episodes import Answer, RealQueries, ValidationEpisodes

LOG_TEMPERATURE = (-8.0, 4.0)
"""Bounds of the logarithm of a temperature."""
MOST_SLOPE = 1.5
"""Bound of the absolute slope of a temperature by shots."""
ENOUGH_QUERIES = 4000
"""Number of queries that is enough to fit a temperature."""
LEAST_LOG = -1e4
"""Lowest log-probability in a mean, so that other members can outvote one that excludes a class."""
LEAST_PROBABILITY = 1e-12
"""Lowest probability of a label that mixture weights are fitted to."""
MIXTURE_ROUNDS = 200
"""Rounds of expectation maximisation for mixture weights."""


def log_probabilities(scores: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """log softmax(scores / temperature) of scores [..., n]; the temperature must broadcast; -inf stays."""
    return (scores / temperature).log_softmax(-1)


def apply_temperature(scores: Sequence[torch.Tensor], temperature: float) -> list[torch.Tensor]:
    """Scores [b, q, n] per batch → log-probabilities [b, q, n] per batch."""
    return [log_probabilities(batch, temperature) for batch in scores]


def fit_temperature(answer: Answer, validation: ValidationEpisodes) -> float:
    """The temperature with the least cross-entropy on the validation queries (Guo et al. 2017)."""
    queries = validation.queries
    sample = _subsample(queries)
    rows, labels = queries.rows(answer.scores)[sample], queries.labels[sample]

    def loss(log_temperature: float) -> float:
        temperature = float(torch.tensor(log_temperature, dtype=torch.float64).exp())
        return float(F.cross_entropy(rows / temperature, labels))

    from scipy import optimize  # noqa: PLC0415 - takes 15 MB and is needed at the end of a run only

    best = optimize.minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded", options={"xatol": 0.02})
    return float(torch.tensor(float(best.x)).exp())


def _subsample(queries: RealQueries) -> slice:
    """About `ENOUGH_QUERIES` queries, evenly spread: enough to fit one or two numbers."""
    return slice(None, None, max(len(queries.labels) // ENOUGH_QUERIES, 1))


@dataclass(frozen=True)
class ShotTemperature:
    """Temperature of an ensemble that depends on the support images per class: exp(level + slope · log shots).

    A mean of log-probabilities is less confident than its members, and more so with more shots.
    """

    level: float = 0.0
    slope: float = 0.0

    def at(self, shots: float) -> float:
        """The temperature for so many shots."""
        return float(np.exp(self.level + self.slope * np.log(shots)))

    def __call__(self, log_p: torch.Tensor, shots: torch.Tensor | float) -> torch.Tensor:
        """Log-probabilities [..., q, n] after the temperature for `shots` [...], the shots of each episode."""
        log_shots = torch.as_tensor(shots, dtype=log_p.dtype).log()
        return log_probabilities(log_p, (self.level + self.slope * log_shots).exp()[..., None, None])

    @classmethod
    def fit(cls, mixed: Sequence[torch.Tensor], validation: ValidationEpisodes) -> ShotTemperature:
        """The one with the least cross-entropy on the validation queries, given the log-probabilities [b, q, n] per
        batch of an ensemble. The slope is 0 if all episodes have the same shots."""
        queries = validation.queries
        sample = _subsample(queries)
        rows, labels = queries.rows(mixed)[sample], queries.labels[sample]
        shots_of_query = [
            shots[:, None].expand(real.shape)[real]
            for shots, real in zip(validation.shots, queries.real, strict=True)
        ]
        log_shots = torch.cat(shots_of_query)[sample].log()
        shots_differ = bool(log_shots.max() > log_shots.min())

        def loss(level_slope: NDArray[np.float64]) -> float:
            inverse = (-level_slope[0] - (level_slope[1] if shots_differ else 0.0) * log_shots).exp()
            return float(F.cross_entropy(rows * inverse[:, None], labels))

        from scipy import optimize  # noqa: PLC0415 - see above

        bounds = [LOG_TEMPERATURE, (-MOST_SLOPE, MOST_SLOPE)]
        best = optimize.minimize(loss, np.zeros(2), method="Powell", bounds=bounds, options={"xtol": 0.02})
        level, slope = (float(value) for value in best.x)
        return cls(level, slope if shots_differ else 0.0)


IDENTITY_TEMPERATURE = ShotTemperature()
"""Temperature 1 for any shots."""


def average(log_p: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Weighted mean of the log-probabilities [..., n] of several members, normalised to sum to 1 again."""
    total = sum(weights)
    mixed = torch.stack(
        [p.clamp(min=LEAST_LOG) * (w / total) for p, w in zip(log_p, weights, strict=True)]
    ).sum(0)
    return mixed.log_softmax(-1)


def average_batches(
    calibrated: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]
) -> list[torch.Tensor]:
    """As `average`, of members that are given per batch."""
    return [average(batch, weights) for batch in zip(*calibrated, strict=True)]


def fit_mixture_weights(
    calibrated: Sequence[Sequence[torch.Tensor]], validation: ValidationEpisodes
) -> list[float]:
    """Weights of members, summing to 1, that make the labels of the validation queries most likely under the weighted
    mean of probabilities.

    A convex problem, solved by expectation maximisation (Dempster et al. 1977).
    """
    of_members = []
    for member in calibrated:
        parts = []
        for log_p, labels in zip(member, validation.labels, strict=True):
            real = labels >= 0
            parts.append(log_p[real].gather(1, labels[real][:, None])[:, 0])
        of_members.append(torch.cat(parts).double().exp())
    of_label = torch.stack(of_members).clamp(min=LEAST_PROBABILITY)
    weights = torch.full((len(of_label), 1), 1 / len(of_label), dtype=torch.float64)
    for _ in range(MIXTURE_ROUNDS):
        joint = weights * of_label
        weights = (joint / joint.sum(0)).mean(1, keepdim=True)
    return [float(weight) for weight in weights]


def mix_batches(calibrated: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]) -> list[torch.Tensor]:
    """Log of the weighted mean of the probabilities of members: [b, q, n] per batch."""
    log_weights = torch.tensor(weights, dtype=torch.float64).log() - torch.tensor(float(sum(weights))).log()
    return [
        torch.stack(
            [log_p + log_weight for log_p, log_weight in zip(batch, log_weights, strict=True)]
        ).logsumexp(0)
        for batch in zip(*calibrated, strict=True)
    ]
