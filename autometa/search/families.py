"""Families of trained learners that a search may try beside heads: which options are searched, and which recipe
these make on a given backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autometa.backbones import find_spec
from autometa.core.errors import ConfigError
from autometa.data.episodes import EpisodeSpec
from autometa.heads import Params
from autometa.heads.spec import Categorical, LogUniform, Trial
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe, find_learner
from autometa.learners.training import TrainingSettings
from autometa.learners.training_spec import cap_spec
from autometa.learners.transfer.classification import ClassifyingLearner

TAIL_STAGES, TRANSFORMER_STAGES = 1, 2
"""Last stages of a backbone that a family trains; those before are a frozen trunk. The very last one of a
transformer is a norm alone."""
VALIDATION_EPISODES = 60
"""For stopping early, and for choices after training."""

TRAINING_RATE = "learning_rate"
"""The one option that belongs to training, not to the learner."""


@dataclass(frozen=True)
class FamilySpec:
    """A learner with options that are settled, the `space` of those that a search chooses, the first guess first, and
    how its training goes."""

    name: str
    settled: Mapping[str, Any]
    space: Mapping[str, LogUniform | Categorical]
    training: TrainingSettings

    def suggest(self, trial: Trial) -> Params:
        """Options that a trial wants tried."""
        return {option: domain.ask(trial, f"{self.name}_{option}") for option, domain in self.space.items()}

    def search_params(self, options: Params) -> Params:
        """The search parameters for options."""
        return {f"{self.name}_{option}": value for option, value in options.items()}

    def first_search_params(self) -> Params:
        """The first guess, as search parameters."""
        return self.search_params({option: domain.first for option, domain in self.space.items()})

    def recipe(self, backbone: str, px: int, test: EpisodeSpec, chosen: Params | None = None) -> Recipe:
        """What to train on a pretrained backbone for tests of this form. `chosen` options count before first
        guesses."""
        transformer = find_spec(backbone).patch_px > 1
        options = {option: domain.first for option, domain in self.space.items()} | dict(chosen or {})
        rate = options.pop(TRAINING_RATE, self.training.learning_rate)
        recipe = Recipe(
            learner=self.name,
            encoder=EncoderSpec(
                network=backbone, px=px, trainable=TRANSFORMER_STAGES if transformer else TAIL_STAGES
            ),
            options={**self.settled, **options},
            training=self.training.model_copy(update={TRAINING_RATE: rate}),
            validation_episodes=VALIDATION_EPISODES,
        )
        if issubclass(find_learner(self.name).cls, ClassifyingLearner):
            return recipe
        form = cap_spec(test)
        capped = {"ways": form.ways, "shots": form.shots, "queries_per_class": form.queries_per_class}
        return recipe.model_copy(update=capped)


SLOW = TrainingSettings(meta_batch=2, learning_rate=1e-4)
"""For pretrained stages: few episodes a step, and a rate that does not undo pretraining."""
SLOW_RATE = LogUniform(2e-5, 1e-3, 1e-4)
CLASSIFYING = TrainingSettings(meta_batch=2, learning_rate=1e-4, classifier_rate=1e-3)
OUTER = TrainingSettings(meta_batch=1, optimizer="sgd", learning_rate=0.5)
PROTOTYPES = {"head": "prototypes"}
FEW_STEPS = Categorical((3, 5, 1))

_ROWS = (
    FamilySpec(
        "reptile",
        PROTOTYPES,
        {"rate": LogUniform(5e-5, 2e-3, 3e-4), "test_steps": Categorical((8, 16, 4))},
        OUTER,
    ),
    FamilySpec("prototypical", {"metric": "cosine"}, {TRAINING_RATE: SLOW_RATE}, SLOW),
    FamilySpec("fomaml", PROTOTYPES, {"rate": LogUniform(2e-3, 0.2, 0.02), "test_steps": FEW_STEPS}, SLOW),
    FamilySpec("maml", {}, {"rate": LogUniform(0.05, 5.0, 1.0), "test_steps": FEW_STEPS}, SLOW),
    FamilySpec("anil", {}, {"rate": LogUniform(0.3, 10.0, 3.0)}, SLOW),
    FamilySpec("proto_maml", {}, {"rate": LogUniform(2e-3, 0.2, 0.02)}, SLOW),
    FamilySpec(
        "pmf", {"rates": (0.0, 1e-3)}, {"steps": Categorical((5, 10)), TRAINING_RATE: SLOW_RATE}, SLOW
    ),
    FamilySpec(
        "adapters", {}, {"steps": Categorical((8, 16)), "rate": LogUniform(0.02, 0.5, 0.1)}, CLASSIFYING
    ),
    FamilySpec(
        "finetune",
        {},
        {"scope": Categorical(("head", "last_blocks")), "steps": Categorical((20, 40))},
        CLASSIFYING,
    ),
)

FAMILIES: dict[str, FamilySpec] = {row.name: row for row in _ROWS}


def find_family(name: str) -> FamilySpec:
    """The row of `FAMILIES`. ConfigError names those that there are."""
    if name not in FAMILIES:
        raise ConfigError(f"unknown family `{name}`; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]
