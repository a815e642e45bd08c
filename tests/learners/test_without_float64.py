"""A GPU of Apple has no float64: what lies there goes to the CPU before it is made float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from learner_cases import TINY, image_episode

from autometa.learners.episodes import InputEpisodes
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner


class OnApple(torch.Tensor):
    """A tensor that refuses float64 until it is on the CPU."""

    def double(self, *_: Any, **__: Any) -> torch.Tensor:
        raise TypeError("MPS has no float64")

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_a_training_step() -> None:
    fitted = TrainedLearner.untrained(Recipe(learner="prototypical", encoder=TINY))
    episode = image_episode(3, 2, 2)
    there = replace(episode, query_labels=episode.query_labels.as_subclass(OnApple))
    assert fitted.learner.train().accumulate(there) > 0


def test_an_answer() -> None:
    fitted = TrainedLearner.untrained(Recipe(learner="prototypical", encoder=TINY))
    forward = fitted.learner.forward

    def answer(episodes: InputEpisodes) -> torch.Tensor:
        return forward(episodes).as_subclass(OnApple)

    fitted.learner.forward = answer  # type: ignore[method-assign]
    images = np.random.default_rng(0).integers(0, 256, (6, 3, TINY.px, TINY.px), dtype=np.uint8)
    answers = fitted.fit(images[:3], np.arange(3), 3).predict(images[3:])
    np.testing.assert_allclose(answers.sum(1), 1)
