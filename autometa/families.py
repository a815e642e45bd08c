"""Families of trained learners that a search may try beside heads: which recipe each has on a given backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from autometa.backbones import find_spec
from autometa.episodes import EpisodeSpec
from autometa.errors import ConfigError
from autometa.learners.encoder import EncoderSpec
from autometa.learners.forms import usual_form
from autometa.learners.recipe import Recipe, find_learner
from autometa.learners.training import TrainingSettings
from autometa.learners.transfer.classification import ClassifyingLearner

TAIL_STAGES, TRANSFORMER_STAGES = 1, 2
"""Last stages of a backbone that a family trains; those before are a frozen trunk. The very last one of a
transformer is a norm alone."""
VALIDATION_EPISODES = 60
"""For stopping early, and for choices after training."""

MakeRecipe = Callable[[str, int, EpisodeSpec], Recipe]
"""Backbone, px and form of the test's episodes → recipe."""


@dataclass(frozen=True)
class FamilyRow:
    """A learner, its options, and how its training goes."""

    learner: str
    options: Mapping[str, Any]
    training: TrainingSettings


def _recipe(row: FamilyRow, backbone: str, px: int, test: EpisodeSpec) -> Recipe:
    transformer = find_spec(backbone).patch_px > 1
    recipe = Recipe(
        learner=row.learner,
        encoder=EncoderSpec(
            network=backbone, px=px, trainable=TRANSFORMER_STAGES if transformer else TAIL_STAGES
        ),
        options=dict(row.options),
        training=row.training,
        validation_episodes=VALIDATION_EPISODES,
    )
    if issubclass(find_learner(row.learner).cls, ClassifyingLearner):
        return recipe
    form = usual_form(test)
    told = {"ways": form.ways, "shots": form.shots, "queries_per_class": form.queries_per_class}
    return recipe.model_copy(update=told)


SLOW = TrainingSettings(meta_batch=2, learning_rate=1e-4)
"""For pretrained stages: few episodes a step, and a rate that does not undo pretraining."""
CLASSIFYING = TrainingSettings(meta_batch=2, learning_rate=1e-4, classifier_rate=1e-3)

_ROWS: dict[str, FamilyRow] = {
    "reptile": FamilyRow(
        "reptile",
        {"head": "prototypes", "rate": 3e-4, "test_steps": 8},
        TrainingSettings(meta_batch=1, optimizer="sgd", learning_rate=0.5),
    ),
    "prototypical": FamilyRow("prototypical", {"metric": "cosine"}, SLOW),
    "fomaml": FamilyRow("fomaml", {"head": "prototypes", "rate": 0.02, "test_steps": 3}, SLOW),
    "maml": FamilyRow("maml", {"rate": 1.0, "test_steps": 3}, SLOW),
    "anil": FamilyRow("anil", {"rate": 3.0}, SLOW),
    "proto_maml": FamilyRow("proto_maml", {"rate": 0.02}, SLOW),
    "pmf": FamilyRow("pmf", {"steps": 5, "rates": (0.0, 1e-3)}, SLOW),
    "adapters": FamilyRow("adapters", {"steps": 8}, CLASSIFYING),
    "finetune": FamilyRow("finetune", {"scope": "head", "steps": 20}, CLASSIFYING),
}

FAMILIES: dict[str, MakeRecipe] = {name: partial(_recipe, row) for name, row in _ROWS.items()}
"""Recipes by the name of a family. The backbone starts from pretrained weights, or from those that
`train_family` is given."""


def find_family(name: str) -> MakeRecipe:
    """The row of `FAMILIES`. ConfigError names those that there are."""
    if name not in FAMILIES:
        raise ConfigError(f"unknown family `{name}`; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
