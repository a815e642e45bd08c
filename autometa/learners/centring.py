"""The mean of training images that some learners centre features by."""

from __future__ import annotations

import torch

from autometa.learners.base import EpisodicLearner
from autometa.learners.episodes import EpisodeSource
from autometa.learners.hooks import Centred

ENOUGH_IMAGES, MOST_EPISODES = 512, 16
"""Training images whose mean is taken, some of them perhaps more than once, of no more episodes than so many."""


class Centring:
    """Shows a learner that is `Centred` the same training images before every validation; nothing else is changed by
    it, and nothing at all for other learners."""

    def __init__(self, learner: EpisodicLearner, source: EpisodeSource, device: str) -> None:
        self._learner = learner
        self._inputs = draw_images(source).to(device) if isinstance(learner, Centred) else None

    def update(self) -> None:
        """Show them, as the learner is now."""
        if self._inputs is not None and isinstance(self._learner, Centred):
            self._learner.centre_on(self._inputs)


def draw_images(source: EpisodeSource) -> torch.Tensor:
    """Encoder inputs [n, ...] of `ENOUGH_IMAGES` images of drawn episodes, or of `MOST_EPISODES`."""
    found: list[torch.Tensor] = []
    for _ in range(MOST_EPISODES):
        if sum(map(len, found)) >= ENOUGH_IMAGES:
            break
        episodes = source.draw(1)
        parts = (episodes.support, episodes.support_labels), (episodes.query, episodes.query_labels)
        found += [images[labels >= 0] for images, labels in parts]
    return torch.cat(found)
