"""What options were by default when saved learners did not hold all of them."""

from __future__ import annotations

from typing import Any

from autometa.learners.recipe import Recipe, read_options

_TWO_STEPS = ("maml", "fomaml", "anil", "boil", "meta_sgd", "proto_maml", "lstm_meta_learner")
EARLIER: dict[str, dict[str, Any]] = {
    **{name: {"steps": 2} for name in _TWO_STEPS},
    "maml_plus_plus": {"steps": 2, "adapt_norm": True},
    "pmf": {"steps": 20, "metric": "euclidean"},
    "cavia": {"steps": 2, "test_steps": 5, "conditioning": "class", "head": "zero"},
}
"""Defaults of version 0.2.0, and later ones, that have changed, by learner."""


def in_full(recipe: Recipe) -> Recipe:
    """The recipe with all options of its learner, as it is saved."""
    return recipe.model_copy(update={"options": read_options(recipe).model_dump(mode="json")})


def complete(recipe: Recipe) -> Recipe:
    """The recipe of a saved learner, with what its options were by default when they were not saved in full."""
    return recipe.model_copy(update={"options": EARLIER.get(recipe.learner, {}) | recipe.options})
