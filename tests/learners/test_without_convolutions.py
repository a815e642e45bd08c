"""Learners on a network without convolutions."""

from __future__ import annotations

import pytest
from learner_cases import PX, image_episode, unzeroed

from autometa.core.errors import ConfigError
from autometa.learners.encoder import EncoderSpec
from autometa.learners.hooks import ClassTrained
from autometa.learners.recipe import LEARNERS, Recipe, build_learner

MLP = EncoderSpec(network="mlp", px=PX, channels=4)


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"adapters"}))
def test_a_learner_answers_and_has_gradients(name: str) -> None:
    learner = unzeroed(build_learner(Recipe(learner=name, encoder=MLP)))
    episode = image_episode(3, 2, 2)
    scores = learner.eval()(episode)
    assert scores.shape == (1, 6, 3) and scores.isfinite().all()
    if name != "train_from_scratch" and not isinstance(learner, ClassTrained):
        learner.train().accumulate(episode)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters())


def test_adapters_have_nothing_to_stand_beside() -> None:
    with pytest.raises(ConfigError, match="convolution"):
        build_learner(Recipe(learner="adapters", encoder=MLP))
