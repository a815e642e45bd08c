"""A fixed set of validation episodes, on which all candidates are measured, so that they can be compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F

from autometa.data.episodes import Episode, EpisodeBatch, make_batches
from autometa.evaluation.accuracy import (
    Scores,
    calibration_error,
    interval95,
    normalised_accuracy,
)
from autometa.heads import FeatureBatch, Metric, Params, apply_head

MAX_BATCH_IMAGES = 6000
"""Number of images, padding included, that are answered at once."""


@dataclass(frozen=True)
class Answer:
    """What a candidate answers on the validation episodes, and how good that is.

    `scores` [b, q, n] per batch, before any temperature; `accuracies`, the normalised accuracy of each episode,
    float64 [episodes]; `log_loss`, the mean negative log-likelihood of a query, which distinguishes answers of equal
    accuracy (inf: not measured); `calibration_error`, only for scores that are log-probabilities (None: not
    measured).
    """

    scores: tuple[torch.Tensor, ...]
    accuracies: Scores
    log_loss: float = math.inf
    calibration_error: float | None = None

    @property
    def mean(self) -> float:
        """Mean normalised accuracy over the episodes."""
        return float(self.accuracies.mean())

    def figures(self) -> dict[str, float]:
        """For records: mean accuracy, half-width of its interval, number of episodes and, if measured, calibration
        error."""
        figures = {
            "normalised_accuracy": self.mean,
            "ci95": interval95(self.accuracies),
            "episodes": float(len(self.accuracies)),
        }
        if self.calibration_error is not None:
            figures["calibration_error"] = self.calibration_error
        return figures

    def percent(self) -> str:
        """For people: mean accuracy and its interval in %."""
        return f"{100 * self.mean:.1f} ± {100 * interval95(self.accuracies):.1f}"


@dataclass(frozen=True)
class RealQueries:
    """All queries of a set of episodes in one list, without padding: `labels` int64 [n], and `real` bool [b, q] per
    batch, which queries are no padding."""

    labels: torch.Tensor
    real: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, batches: Sequence[EpisodeBatch]) -> RealQueries:
        """The queries of padded batches, in the order of the batches."""
        real = tuple(batch.query_labels >= 0 for batch in batches)
        labels = [batch.query_labels[each] for batch, each in zip(batches, real, strict=True)]
        return cls(torch.cat(labels), real)

    def rows(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores [b, q, w] per batch as one matrix float32 [n, w]; -inf for classes that an episode does not have."""
        ways = max(part.shape[-1] for part in scores)
        parts = [
            F.pad(part[real].float(), (0, ways - part.shape[-1]), value=float("-inf"))
            for part, real in zip(scores, self.real, strict=True)
        ]
        return torch.cat(parts)


class ValidationEpisodes:
    """A fixed set of episodes, held as padded batches of similar size."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = tuple(episodes)
        self._batches = make_batches(self.episodes, MAX_BATCH_IMAGES)

    @property
    def batches(self) -> list[EpisodeBatch]:
        """The padded batches. Their order differs from that of the episodes; `measure` undoes that."""
        return [batch for _, batch in self._batches]

    @cached_property
    def queries(self) -> RealQueries:
        """All queries of the batches in one list."""
        return RealQueries.of(self.batches)

    @property
    def labels(self) -> list[torch.Tensor]:
        """Query labels [b, q] of each batch, -1 where padded."""
        return [batch.query_labels for batch in self.batches]

    @property
    def shots(self) -> list[torch.Tensor]:
        """Mean number of support images per class of each episode, float64 [b] of each batch."""
        return [(batch.support_labels >= 0).sum(1).double() / batch.ways for batch in self.batches]

    def measure(self, scores: Sequence[torch.Tensor]) -> Answer:
        """The answer with these scores [b, q, n] per batch, with its accuracies."""
        accuracies = np.empty(len(self.episodes))
        for (places, batch), score in zip(self._batches, scores, strict=True):
            accuracies[places] = normalised_accuracy(score, batch.query_labels, batch.ways).numpy()
        return Answer(tuple(scores), accuracies)

    def measure_with_loss(self, scores: Sequence[torch.Tensor]) -> Answer:
        """As `measure`, with the log-loss too, which takes longer."""
        losses, queries = 0.0, 0
        for labels, score in zip(self.labels, scores, strict=True):
            flat = score.flatten(0, 1)
            losses += float(F.cross_entropy(flat, labels.flatten(), ignore_index=-1, reduction="sum"))
            queries += int((labels >= 0).sum())
        return replace(self.measure(scores), log_loss=losses / queries)

    def with_calibration(self, answer: Answer) -> Answer:
        """An answer whose scores are log-probabilities, with its calibration error."""
        return replace(answer, calibration_error=calibration_error(answer.scores, self.labels))

    def answer(
        self, features: torch.Tensor, head: str, params: Params, metric: Metric, *, balanced: bool = False
    ) -> Answer:
        """The answer of a head. ValueError or KeyError for an unknown head or wrong parameters.

        `features` float32 [n, d] of all images, to which `metric` was already applied, on the CPU, where heads answer
        in meta-test too. `balanced`: each class is known to have as many queries.
        """
        products = _SharedProducts(features, self.batches)
        scores = []
        for _, batch in self._batches:
            look_up = partial(products.look_up, batch) if products.saves_work else None
            gathered = replace(gather_features(features, batch), prior=metric.prior, products=look_up)
            scores.append(apply_head(head, params, gathered, balanced=balanced))
        return self.measure(scores)


def gather_features(features: torch.Tensor, batch: EpisodeBatch) -> FeatureBatch:
    """The features of a batch of episodes, out of those [n, d] of all images, where these are."""
    device = features.device
    return FeatureBatch(
        support=features[batch.support_rows.to(device)],
        support_labels=batch.support_labels.to(device),
        query=features[batch.query_rows.to(device)],
        ways=batch.ways.to(device),
        query_real=(batch.query_labels >= 0).to(device),
    )


class _SharedProducts:
    """Inner products of all images that the episodes use, computed once for all episodes, when a head first needs
    them."""

    def __init__(self, features: torch.Tensor, batches: Sequence[EpisodeBatch]) -> None:
        self._features = features
        rows = [part.flatten() for batch in batches for part in (batch.support_rows, batch.query_rows)]
        self._used = torch.from_numpy(np.unique(torch.cat(rows).numpy()))
        episode_by_episode = sum(
            len(batch.ways) * (batch.support_rows.shape[1] + batch.query_rows.shape[1]) ** 2
            for batch in batches
        )
        self.saves_work = len(self._used) ** 2 < episode_by_episode

    @cached_property
    def _matrix(self) -> torch.Tensor:
        used = self._features[self._used.to(self._features.device)]
        return used @ used.T

    def look_up(self, batch: EpisodeBatch) -> torch.Tensor:
        """Inner products [b, s + q, s + q] of the images of a batch, support first."""
        rows = torch.cat([batch.support_rows, batch.query_rows], dim=1)
        places = torch.searchsorted(self._used, rows).to(self._features.device)
        flat = places[:, :, None] * len(self._used) + places[:, None, :]
        return self._matrix.flatten().take(flat)
