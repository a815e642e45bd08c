"""The mean of training images that some learners centre features by."""

from __future__ import annotations

import torch

from autometa.learners.base import EpisodicLearner
from autometa.learners.episodes import EpisodeSource
from autometa.learners.hooks import Centred

EPISODES, MOST_IMAGES = 16, 512
"""Training episodes over whose images the mean is taken, some of them perhaps more than once; at most so many."""


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
    """Encoder inputs [n, ...] of images of some training episodes."""
    episodes = source.draw(EPISODES)
    parts = (episodes.support, episodes.support_labels), (episodes.query, episodes.query_labels)
    return torch.cat([images[labels >= 0] for images, labels in parts])[:MOST_IMAGES]
