"""What a run says about the accuracy that it will have: a figure with an interval that counts classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.student_t import quantile95
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import Rows
from autometa.evaluation.folds import Fold

DRAWS = 400
"""Bootstrap samples."""
LEAST_WAYS_VARIANCE = 1e-9
"""Of the logarithm of the ways, from which on a line is drawn."""
LEAST_RECALLS = 20
"""Answers for classes of episodes that an estimate is made of, at least."""


@dataclass(frozen=True)
class Recalls:
    """How well each class of each episode was answered: normalised `recall` [n], the `classes` [n], the `episodes`
    [n] and the logarithm of their ways [n]."""

    recall: NDArray[np.float64]
    classes: Rows
    episodes: Rows
    log_ways: NDArray[np.float64]

    @classmethod
    def of(cls, fold: Fold, labels: Rows, scores: Sequence[torch.Tensor], first_episode: int = 0) -> Recalls:
        """From scores [b, q, n] per batch of the episodes of a fold. `labels` [m]: the class of each image of the
        fold. Episodes are numbered from `first_episode` on."""
        recall, classes, episodes, log_ways = [], [], [], []
        place = first_episode
        for batch, score in zip(fold.episodes.batches, scores, strict=True):
            hits = (score.argmax(-1) == batch.query_labels).numpy()
            for row in range(len(hits)):
                ways, asked = int(batch.ways[row]), batch.query_labels[row].numpy()
                for label in range(ways):
                    own = asked == label
                    if own.any():
                        recall.append((hits[row][own].mean() - 1 / ways) / (1 - 1 / ways))
                        classes.append(int(labels[int(batch.query_rows[row][int(own.argmax())])]))
                        episodes.append(place)
                        log_ways.append(np.log(ways))
                place += 1
        return cls(np.array(recall), np.array(classes), np.array(episodes), np.array(log_ways))

    @classmethod
    def join(cls, parts: Sequence[Recalls]) -> Recalls:
        """Those of several folds."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("recall", "classes", "episodes", "log_ways")
            )
        )


@dataclass(frozen=True)
class Estimate:
    """Expected mean normalised accuracy over the tasks of a test, and the ends of an interval that holds it with a
    probability of 95 %."""

    accuracy: float
    low: float
    high: float

    def percent(self) -> str:
        """For people, in %."""
        return f"{100 * self.accuracy:.1f} (95 %: {100 * self.low:.1f} to {100 * self.high:.1f})"

    def figures(self) -> dict[str, object]:
        """For records."""
        half = (self.high - self.low) / 2
        return {"normalised_accuracy": self.accuracy, "interval": [self.low, self.high], "ci95": half}


def estimate_accuracy(
    recalls: Recalls, spec: EpisodeSpec, tasks: int, rng: np.random.Generator
) -> Estimate | None:
    """The estimate for so many tasks of the form `spec` on as many classes as were answered; None where too little
    was answered.

    Held-out classes are fewer than those of a test, so episodes have fewer ways: a line in the logarithm of the ways
    leads to the ways of the test. The interval is a bootstrap over classes, in which the classes and tasks of the
    test are drawn anew, too: its mean varies as much as that of the evidence does. A class counts as often as it is
    drawn, and as much as the classes that it was told apart from are: which classes meet matters as much as which
    class is asked for. One class in all may be unlike those seen, and fail: where all answers are right, a bootstrap
    alone would promise certainty.
    """
    classes = np.unique(recalls.classes)
    if len(recalls.recall) < LEAST_RECALLS or len(classes) < 2:
        return None
    ways = np.arange(min(spec.ways[0], len(classes)), min(spec.ways[1], len(classes)) + 1)
    target = float(np.log(ways).mean())
    place = np.searchsorted(classes, recalls.classes)
    episode_weight = 1 / np.bincount(recalls.episodes)[recalls.episodes]  # not all classes have queries
    mean = _at_ways(recalls, episode_weight, target)
    drawn = []
    for _ in range(DRAWS):
        counts = np.bincount(rng.integers(len(classes), size=len(classes)), minlength=len(classes))[place]
        company = np.bincount(recalls.episodes, weights=counts * episode_weight)[recalls.episodes]
        drawn.append(_at_ways(recalls, episode_weight * counts * company, target))
    of_episode = np.bincount(recalls.episodes, weights=recalls.recall * episode_weight)
    of_episode = of_episode[np.unique(recalls.episodes)]
    tasks_variance = float(of_episode.var(ddof=1)) / max(tasks, 1)
    spread = quantile95(len(classes)) * float(np.sqrt(2 * np.var(drawn) + tasks_variance)) + 1 / len(classes)
    return Estimate(mean, max(mean - spread, 0.0), min(mean + spread, 1.0))


def _at_ways(recalls: Recalls, weights: NDArray[np.float64], target: float) -> float:
    """Weighted mean recall, moved along the regression line on the logarithm of the ways to `target`. The line never
    rises with the ways."""
    total = weights.sum()
    if total <= 0:
        return 0.0
    mean_ways = (weights * recalls.log_ways).sum() / total
    mean = (weights * recalls.recall).sum() / total
    offset = recalls.log_ways - mean_ways
    variance = (weights * offset**2).sum()
    differs = variance > LEAST_WAYS_VARIANCE * total  # rounding is no difference
    slope = (weights * offset * recalls.recall).sum() / variance if differs else 0.0
    return float(np.clip(mean + min(slope, 0.0) * (target - mean_ways), 0.0, 1.0))
