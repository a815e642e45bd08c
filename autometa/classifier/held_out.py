"""What a classifier scores on classes that a class split holds out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from autometa.classifier.notes import Report
from autometa.classifier.reading import MOST_SHOTS, MOST_WAYS, QUERIES
from autometa.classifier.spaces import Encoded, Space, Support, concatenate
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import DataError
from autometa.data.episodes import Episode, EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.accuracy import Scores, interval95, normalised_accuracy

TASKS, LEAST_TASKS = 100, 10
SCORING_SHARE = 0.1
"""Of the time left before anything is learned."""
ENCODING_SHARE = 0.7
"""Of the time to score."""
LATENCY_S = 2.0
"""What remains to measure latency."""
CHUNK = 128
"""Images that are encoded at a time."""


def without_scoring(budget: TimeBudget) -> TimeBudget:
    """What is left to learn, where held-out classes will be scored."""
    return TimeBudget(budget.deadline - SCORING_SHARE * max(budget.left_s(), 0.0), budget.clock)


def score_held_out(
    space: Space, pool: ImagePool, seed: int, budget: TimeBudget, report: Report
) -> dict[str, Any] | None:
    """Mean normalised accuracy on tasks of the classes of a pool, each query answered alone, with half the width of
    its 95 % interval over tasks, and the numbers of tasks and classes. None, with a line that says why, where there
    is no time for it, or no task can be drawn."""
    scoring = TimeBudget(budget.deadline - LATENCY_S, budget.clock)
    rng = np.random.default_rng(seed)
    rows = _rows_in_turns(pool, rng)
    encoded = _encode(space, pool, rows, scoring.share(ENCODING_SHARE))
    rows = rows[: len(next(iter(encoded.values())))]
    part = ImagePool(pool.images[rows, :, :1, :1], pool.labels[rows], pool.dataset_of_class, pool.datasets)
    form = EpisodeSpec((2, MOST_WAYS), (1, MOST_SHOTS), QUERIES)
    try:
        episodes = sample_episodes(part, np.arange(pool.classes), form, TASKS, rng)
    except DataError as error:
        report(f"classes of meta-valid: not scored, as {error}")
        return None
    scores = _score(space, encoded, episodes, scoring)
    if len(scores) < LEAST_TASKS:
        report("classes of meta-valid: not scored, as no time was left; a longer --time-budget does")
        return None
    return {
        "normalised_accuracy": float(scores.mean()),
        "ci95": interval95(scores),
        "tasks": len(scores),
        "classes": int((part.class_sizes > 1).sum()),
    }


def _rows_in_turns(pool: ImagePool, rng: np.random.Generator) -> Rows:
    """Rows of a pool, some of each class; classes take turns, so that any beginning has a fair share of each."""
    parts = [rng.permutation(rows)[: MOST_SHOTS + QUERIES] for rows in pool.rows_of_class]
    turns = np.concatenate([np.arange(len(rows)) for rows in parts])
    return np.concatenate(parts)[np.argsort(turns, kind="stable")]


def _encode(space: Space, pool: ImagePool, rows: Rows, time: TimeBudget) -> Encoded:
    """The first of these images, as many as there is time for, but one chunk at least."""
    parts: list[Encoded] = []
    for start in range(0, len(rows), CHUNK):
        elapsed = stopwatch()
        chunk = rows[start : start + CHUNK]
        parts.append(space.encode(pool.images[chunk], ahead=len(rows) - start - len(chunk)))
        if not time.fits(elapsed()):
            break
    return concatenate(parts)


def _score(space: Space, encoded: Encoded, episodes: Sequence[Episode], time: TimeBudget) -> Scores:
    """Normalised accuracy of each episode, until the time is over."""
    found = []
    for episode in episodes:
        if time.left_s() <= 0:
            break
        support_rows, query_rows = map(torch.from_numpy, (episode.support_rows, episode.query_rows))
        labels = torch.from_numpy(episode.support_labels)
        support = Support({name: each[support_rows] for name, each in encoded.items()}, labels, episode.ways)
        query = {name: each[query_rows] for name, each in encoded.items()}
        answer = space.answer(support, query, transductive=False)
        truth, ways = torch.from_numpy(episode.query_labels), torch.tensor([episode.ways])
        found.append(float(normalised_accuracy(answer[None], truth[None], ways)))
    return np.array(found)
