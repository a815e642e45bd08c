"""What saved learners of earlier versions do not say, or say without effect."""

from __future__ import annotations

from typing import Any

from autometa.learners.encoder import EncoderSpec, list_without_effect
from autometa.learners.recipe import Recipe, read_options

_TWO_STEPS = ("maml", "fomaml", "anil", "boil", "meta_sgd", "proto_maml", "lstm_meta_learner")
EARLIER: dict[str, dict[str, Any]] = {
    **{name: {"steps": 2} for name in _TWO_STEPS},
    "maml_plus_plus": {"steps": 2, "adapt_norm": True},
    "pmf": {"steps": 20, "metric": "euclidean"},
    "cavia": {"steps": 2, "test_steps": 5, "conditioning": "class", "head": "zero"},
}
"""Defaults of version 0.2.0, and later ones, that have changed, by learner."""
WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "reptile": ("tasks", "first_order", "task_memory"),
    "lstm_meta_learner": ("tasks", "task_memory"),
}
"""Options that earlier versions took and never read, by learner."""


def in_full(recipe: Recipe) -> Recipe:
    """The recipe with all options of its learner, as it is saved."""
    return recipe.model_copy(update={"options": read_options(recipe).model_dump(mode="json")})


def complete(recipe: Recipe) -> Recipe:
    """The recipe of a saved learner, with what its options were by default when they were not saved in full, and
    without those that have no effect."""
    unread = WITHOUT_EFFECT.get(recipe.learner, ())
    said = {name: value for name, value in recipe.options.items() if name not in unread}
    return recipe.model_copy(update={"options": EARLIER.get(recipe.learner, {}) | said})


def drop_unread(recipe: Any) -> Any:
    """The values of a saved recipe without those fields of its encoder that have no effect on its network."""
    match recipe:
        case {"encoder": {**spec}}:
            unread = list_without_effect(str(spec.get("network", EncoderSpec().network)))
            return {**recipe, "encoder": {name: spec[name] for name in spec if name not in unread}}
    return recipe
