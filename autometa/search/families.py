"""Families of trained learners that a run may train copies of backbones with, and the recipe of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from autometa.backbones import find_spec
from autometa.core.errors import ConfigError
from autometa.data.episodes import EpisodeSpec
from autometa.heads import Params
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe, find_learner
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.training_spec import cap_spec
from autometa.learners.transfer.classification import ClassifyingLearner

TAIL_STAGES, TRANSFORMER_STAGES = 1, 2
"""Last stages of a backbone that a family trains; those before are a frozen trunk. The very last one of a
transformer is a norm alone."""
VALIDATION_EPISODES = 60
"""For stopping early, and for choices after training."""


@dataclass(frozen=True)
class FamilySpec:
    """A learner, its options, and how its training goes."""

    name: str
    training: TrainingSettings
    options: Params = field(default_factory=dict)

    def recipe(self, backbone: str, px: int, test: EpisodeSpec) -> Recipe:
        """What to train on a pretrained backbone for tests of this form."""
        transformer = find_spec(backbone).patch_px > 1
        recipe = Recipe(
            learner=self.name,
            encoder=EncoderSpec(
                network=backbone, px=px, trainable=TRANSFORMER_STAGES if transformer else TAIL_STAGES
            ),
            options=self.options,
            training=self.training,
            validation_episodes=VALIDATION_EPISODES,
        )
        if issubclass(find_learner(self.name).cls, ClassifyingLearner):
            return recipe
        form = cap_spec(test)
        capped = {"ways": form.ways, "shots": form.shots, "queries_per_class": form.queries_per_class}
        return recipe.model_copy(update=capped)


SLOW = TrainingSettings(meta_batch=2, learning_rate=1e-4)
"""For pretrained stages: few episodes a step, and a rate that does not undo pretraining."""
CLASSIFYING = TrainingSettings(meta_batch=2, learning_rate=1e-4, classifier_rate=1e-3)
OUTER = TrainingSettings(meta_batch=1, optimizer="sgd", learning_rate=0.5, clip=None)

_ROWS = (
    FamilySpec("reptile", OUTER, {"head": "prototypes", "rate": 3e-4, "test_steps": 8}),
    FamilySpec("prototypical", SLOW, {"metric": "cosine"}),
    FamilySpec("fomaml", SLOW, {"head": "prototypes", "rate": 0.02, "steps": 2, "test_steps": 3}),
    FamilySpec("maml", SLOW, {"rate": 1.0, "steps": 2, "test_steps": 3}),
    FamilySpec("anil", SLOW, {"rate": 3.0, "steps": 2}),
    FamilySpec("proto_maml", SLOW, {"rate": 0.02, "steps": 2}),
    FamilySpec("pmf", SLOW, {"metric": "euclidean", "rates": (0.0, 1e-3), "steps": 5}),
    FamilySpec("adapters", CLASSIFYING, {"steps": 8, "rate": 0.1}),
    FamilySpec("finetune", CLASSIFYING, {"scope": "head", "steps": 20}),
)

FAMILIES: dict[str, FamilySpec] = {row.name: row for row in _ROWS}


def find_family(name: str) -> FamilySpec:
    """The row of `FAMILIES`. ConfigError names those that there are."""
    if name not in FAMILIES:
        raise ConfigError(f"unknown family `{name}`; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
