"""What a task costs a portfolio beside the networks, measured before meta-test."""

from __future__ import annotations

from functools import partial

import numpy as np

from autometa.core.budget import stopwatch
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool
from autometa.model.portfolio import Portfolio


def measure_task_s(
    pool: ImagePool, portfolio: Portfolio, spec: EpisodeSpec, rng: np.random.Generator
) -> float:
    """Seconds of a task, its images embedded, measured on one that is drawn from the pool. DataError where none can
    be drawn."""
    (episode,) = sample_episodes(pool, np.arange(pool.classes), spec, 1, rng)
    support, query = pool.images[episode.support_rows], pool.images[episode.query_rows]
    fit = partial(portfolio.fit, support, episode.support_labels, episode.ways)
    fit().predict(query)
    elapsed = stopwatch()
    fit().predict(query)
    return elapsed()
