"""Which form the episodes have that a learner is trained on."""

from __future__ import annotations

from autometa.data.episodes import EpisodeSpec
from autometa.learners.base import EpisodicLearner
from autometa.learners.hooks import ClassTrained
from autometa.learners.recipe import Recipe
from autometa.learners.transfer.classification import CLASSIFICATION_SPEC

MOST_WAYS, MOST_SHOTS, MOST_QUERIES = 10, 5, 5
"""Of training episodes, where a recipe names none: enough to learn from, and several a second."""


def cap_spec(test: EpisodeSpec) -> EpisodeSpec:
    """The test's episodes with no more ways, shots and queries than are enough to learn from."""
    (least_ways, most_ways), (least_shots, most_shots) = test.ways, test.shots
    return EpisodeSpec(
        (least_ways, max(min(most_ways, MOST_WAYS), least_ways)),
        (least_shots, max(min(most_shots, MOST_SHOTS), least_shots)),
        min(test.queries_per_class, MOST_QUERIES),
    )


def choose_training_spec(recipe: Recipe, learner: EpisodicLearner, test: EpisodeSpec) -> EpisodeSpec:
    """What the recipe says of training episodes; else what suits the learner and the test."""
    usual = CLASSIFICATION_SPEC if isinstance(learner, ClassTrained) else cap_spec(test)
    return EpisodeSpec(
        recipe.ways or usual.ways,
        recipe.shots or usual.shots,
        recipe.queries_per_class or usual.queries_per_class,
    )
