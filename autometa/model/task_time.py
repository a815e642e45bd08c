"""What a task costs a portfolio beside the networks, measured before meta-test."""

from __future__ import annotations

from functools import partial

import numpy as np

from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import stopwatch
from autometa.core.errors import DataError
from autometa.data.episodes import Episode, EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, hash_images
from autometa.model.portfolio import Portfolio

DRAWN = 16
"""Tasks of which the one is timed that has about as many images as they have on average."""


def measure_task_s(
    pool: ImagePool, portfolio: Portfolio, spec: EpisodeSpec, rng: np.random.Generator, known: FeatureStore
) -> float | None:
    """Seconds of a task, its images embedded, measured on one of usual size that is drawn from the pool; None where
    none can be drawn. `known` has the features of all images of the pool by their rows, so that no network runs."""
    try:
        episodes = sample_episodes(pool, np.arange(pool.classes), spec, DRAWN, rng)
    except DataError:
        return None
    sizes = np.array([len(each.support_rows) + len(each.query_rows) for each in episodes])
    episode = episodes[int(np.abs(sizes - sizes.mean()).argmin())]
    rows = np.concatenate([episode.support_rows, episode.query_rows])
    keys = [hash_images(pool.images[row : row + 1])[0] for row in rows]
    for view in portfolio.views:
        portfolio.store.take_over(known, view, keys, rows.tolist())
    return time_task(pool, portfolio, episode)


def time_task(pool: ImagePool, portfolio: Portfolio, episode: Episode) -> float:
    """Seconds that a portfolio takes for a task, its images embedded: it is answered once before."""
    support, query = pool.images[episode.support_rows], pool.images[episode.query_rows]
    fit = partial(portfolio.fit, support, episode.support_labels, episode.ways)
    portfolio.looks = False  # its images are embedded
    try:
        fit().predict(query)
        elapsed = stopwatch()
        fit().predict(query)
        return elapsed()
    finally:
        portfolio.looks = True
