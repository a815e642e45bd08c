"""Paired validation episodes → normalised accuracy with its interval, and calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from autometa.data.episodes import Episode, EpisodeBatch, batches_of
from autometa.evaluation.accuracy import (
    Scores,
    _confidence_and_hits,
    _pooled_error,
    interval95,
    normalised_accuracy,
)
from autometa.heads import FeatureBatch, Metric, Params, Prior, apply_head

MAX_BATCH_IMAGES = 6000


@dataclass(frozen=True)
class Answer:
    """What a candidate says on the validation episodes: its scores [b, q, n] per batch (before the
    temperature), the normalised accuracy of every episode, float64 [episodes], the mean negative
    log-likelihood of a query, which tells apart what is equally accurate (inf: not measured), and the expected
    calibration error of an answer in log-probabilities (None: not measured)."""

    scores: tuple[torch.Tensor, ...]
    accuracies: Scores
    log_loss: float = math.inf
    calibration_error: float | None = None

    @property
    def mean(self) -> float:
        """Mean normalised accuracy."""
        return float(self.accuracies.mean())

    def figures(self) -> dict[str, float]:
        """Mean, half-width of its interval, number of episodes and, if measured, the calibration error, for
        records."""
        found = {
            "normalised_accuracy": self.mean,
            "ci95": interval95(self.accuracies),
            "episodes": float(len(self.accuracies)),
        }
        if self.calibration_error is not None:
            found["calibration_error"] = self.calibration_error
        return found

    def percent(self) -> str:
        """Mean and interval in %, for people."""
        return f"{100 * self.mean:.1f} ± {100 * interval95(self.accuracies):.1f}"


@dataclass(frozen=True)
class RealQueries:
    """All queries of a set of episodes in one list, without padding: `labels` int64 [n] and the `share` float64 [n]
    that each has in the mean normalised accuracy, once `chance` is taken off."""

    labels: torch.Tensor
    share: torch.Tensor
    chance: float
    real: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, batches: Sequence[EpisodeBatch]) -> RealQueries:
        """The queries of padded batches, in their order."""
        episodes = sum(len(batch.ways) for batch in batches)
        labels, shares, chance = [], [], 0.0
        real_parts = tuple(batch.query_labels >= 0 for batch in batches)
        for batch, real in zip(batches, real_parts, strict=True):
            counts = F.one_hot(batch.query_labels + 1)[..., 1:].sum(1)  # of each class, [b, n]
            ways = batch.ways.double()
            whole = (counts > 0).sum(1) * (1 - 1 / ways) * episodes
            share = 1 / (counts.gather(1, batch.query_labels.clamp(min=0)) * whole[:, None])
            labels.append(batch.query_labels[real])
            shares.append(share[real])
            chance += float((1 / (ways - 1)).sum()) / episodes
        return cls(torch.cat(labels), torch.cat(shares), chance, real_parts)

    def rows(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores [b, q, w] per batch as one matrix float32 [n, w], -inf for classes that an episode has not."""
        ways = max(part.shape[-1] for part in scores)
        parts = [
            F.pad(part[real].float(), (0, ways - part.shape[-1]), value=float("-inf"))
            for part, real in zip(scores, self.real, strict=True)
        ]
        return torch.cat(parts)

    def accuracy(self, rows: torch.Tensor) -> torch.Tensor:
        """Mean normalised accuracy, float64 [...], of scores [..., n, w]."""
        hits = rows.argmax(-1) == self.labels
        return hits.double() @ self.share - self.chance


class ValidationEpisodes:
    """A fixed set of episodes on which every candidate is measured."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.episodes = tuple(episodes)
        self._batches = batches_of(self.episodes, MAX_BATCH_IMAGES)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def batches(self) -> list[EpisodeBatch]:
        """The episodes in padded batches, in an order of their own that `measure` knows."""
        return [batch for _, batch in self._batches]

    @cached_property
    def queries(self) -> RealQueries:
        """All queries of the batches as one list."""
        return RealQueries.of(self.batches)

    @property
    def labels(self) -> list[torch.Tensor]:
        """Query labels [b, q] of each batch, -1 where padded."""
        return [batch.query_labels for batch in self.batches]

    @property
    def shots(self) -> list[torch.Tensor]:
        """Support images per class, on average over the classes of an episode, float64 [b] of each batch."""
        return [(batch.support_labels >= 0).sum(1).double() / batch.ways for batch in self.batches]

    def measure(self, scores: Sequence[torch.Tensor]) -> Answer:
        """The answer that consists of these scores per batch."""
        accuracies = np.empty(len(self.episodes))
        for (places, batch), score in zip(self._batches, scores, strict=True):
            accuracies[places] = normalised_accuracy(score, batch.query_labels, batch.ways).numpy()
        return Answer(tuple(scores), accuracies)

    def measure_with_loss(self, scores: Sequence[torch.Tensor]) -> Answer:
        """The same with its log-loss, which a search over many heads has no use for."""
        losses, queries = 0.0, 0
        for labels, score in zip(self.labels, scores, strict=True):
            flat = score.flatten(0, 1)
            losses += float(F.cross_entropy(flat, labels.flatten(), ignore_index=-1, reduction="sum"))
            queries += int((labels >= 0).sum())
        return replace(self.measure(scores), log_loss=losses / queries)

    def with_calibration(self, answer: Answer) -> Answer:
        """An answer whose scores are log-probabilities, with its calibration error over all queries."""
        parts = [_confidence_and_hits(*pair) for pair in zip(answer.scores, self.labels, strict=True)]
        return replace(answer, calibration_error=_pooled_error(parts))

    def answer(
        self, features: torch.Tensor, head: str, params: Params, metric: Metric, *, balanced: bool = False
    ) -> Answer:
        """The answer of a head on features float32 [n, d] of all images of the pool, which `metric` has
        already been applied to; `balanced`: queries are known to be equally many of each class."""
        features = features.to(self._device)
        prior = metric.prior.to(self._device) if metric.prior else None
        pool = _PoolProducts(features, self.batches)
        scores = []
        for _, batch in self._batches:
            gathered = _gather(features, batch, prior, pool)
            scores.append(apply_head(head, params, gathered, balanced=balanced).cpu())
        return self.measure(scores)


class _PoolProducts:
    """Inner products of the images that episodes draw on, computed once and only if a head asks."""

    def __init__(self, features: torch.Tensor, batches: Sequence[EpisodeBatch]) -> None:
        self._features = features
        every = [rows.flatten() for batch in batches for rows in (batch.support_rows, batch.query_rows)]
        self._used = torch.from_numpy(np.unique(torch.cat(every).numpy()))
        each = [
            len(batch.ways) * (batch.support_rows.shape[1] + batch.query_rows.shape[1]) ** 2
            for batch in batches
        ]
        self.pays = len(self._used) ** 2 < sum(each)

    @cached_property
    def _all(self) -> torch.Tensor:
        used = self._features[self._used.to(self._features.device)]
        return used @ used.T

    def products(self, batch: EpisodeBatch) -> torch.Tensor:
        """Inner products [b, s + q, s + q] of a batch's images."""
        rows = torch.cat([batch.support_rows, batch.query_rows], dim=1)
        places = torch.searchsorted(self._used, rows).to(self._features.device)
        flat = places[:, :, None] * len(self._used) + places[:, None, :]
        return self._all.flatten().take(flat)


def _gather(
    features: torch.Tensor, batch: EpisodeBatch, prior: Prior | None, pool: _PoolProducts
) -> FeatureBatch:
    device = features.device
    return FeatureBatch(
        support=features[batch.support_rows.to(device)],
        support_labels=batch.support_labels.to(device),
        query=features[batch.query_rows.to(device)],
        ways=batch.ways.to(device),
        query_real=(batch.query_labels >= 0).to(device),
        prior=prior,
        products=(lambda: pool.products(batch)) if pool.pays else None,
    )
