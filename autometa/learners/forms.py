"""What every meta-training on a pool needs: the form of its training episodes, and where they come from."""

from __future__ import annotations

import numpy as np
import torch

from autometa.data.episodes import EpisodeSpec
from autometa.data.images import Rows
from autometa.learners.base import EpisodicLearner
from autometa.learners.episodes import EpisodeSampler, PoolSource
from autometa.learners.hooks import ClassTrained
from autometa.learners.recipe import Recipe
from autometa.learners.transfer.classification import CLASSIFIED

MOST_SHOTS = 5
MOST_QUERIES = 5
MOST_WAYS = 10
"""Of training episodes, where a recipe names none: enough to learn from, and several a second."""


def usual_form(test: EpisodeSpec) -> EpisodeSpec:
    """The form of the test's episodes, with no more images than are enough to learn from."""
    lowest, highest = test.ways
    return EpisodeSpec(
        (lowest, max(min(highest, MOST_WAYS), lowest)),
        (test.shots[0], max(min(test.shots[1], MOST_SHOTS), test.shots[0])),
        min(test.queries_per_class, MOST_QUERIES),
    )


def training_form(recipe: Recipe, learner: EpisodicLearner, test: EpisodeSpec) -> EpisodeSpec:
    """What the recipe says of training episodes; else what suits the learner and the test."""
    usual = CLASSIFIED if isinstance(learner, ClassTrained) else usual_form(test)
    return EpisodeSpec(
        recipe.ways or usual.ways,
        recipe.shots or usual.shots,
        recipe.queries_per_class or usual.queries_per_class,
    )


def pool_source(
    recipe: Recipe,
    inputs: torch.Tensor,
    labels: Rows,
    classes: Rows,
    dataset_of_class: Rows,
    form: EpisodeSpec,
) -> PoolSource:
    """Training episodes of these classes over images whose encoder `inputs` [n, ...] and labels [n] are given, as
    the recipe draws them. DataError where no dataset has two such classes of two images."""
    rng = np.random.default_rng([recipe.training.seed, 1])
    sampler = EpisodeSampler(labels, classes, dataset_of_class, form, rng, recipe.unlabelled_per_class)
    return PoolSource(inputs, sampler, recipe.augmentation)
