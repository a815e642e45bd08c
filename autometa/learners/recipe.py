"""A learner and how it is trained, as validated settings; `LEARNERS` is the table of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from autometa.core.errors import ConfigError
from autometa.core.settings import Settings, validate_settings
from autometa.core.units import Range
from autometa.learners.augmentation import NO_AUGMENTATION, Augmentation
from autometa.learners.base import EpisodicLearner, Options
from autometa.learners.encoder import SCRATCH, EncoderSpec, build_encoder
from autometa.learners.gradient.anil import ANIL
from autometa.learners.gradient.boil import BOIL
from autometa.learners.gradient.cavia import CAVIA
from autometa.learners.gradient.fomaml import FOMAML
from autometa.learners.gradient.lstm_meta_learner import LSTMMetaLearner
from autometa.learners.gradient.maml import MAML
from autometa.learners.gradient.maml_plus_plus import MAMLPlusPlus
from autometa.learners.gradient.meta_sgd import MetaSGD
from autometa.learners.gradient.proto_maml import ProtoMAML
from autometa.learners.gradient.reptile import Reptile
from autometa.learners.memory.mann import MANN
from autometa.learners.memory.meta_networks import MetaNetworks
from autometa.learners.memory.snail import SNAIL
from autometa.learners.metric.gaussian_prototypical import GaussianPrototypical
from autometa.learners.metric.matching import Matching
from autometa.learners.metric.matching_fce import MatchingFCE
from autometa.learners.metric.prototypical import Prototypical
from autometa.learners.metric.relation import Relation
from autometa.learners.metric.semi_supervised_prototypical import SemiSupervisedPrototypical
from autometa.learners.metric.siamese import Siamese
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.transfer.adapters import Adapters
from autometa.learners.transfer.classification import ClassifyingLearner
from autometa.learners.transfer.finetune import Finetune
from autometa.learners.transfer.imprinted import Imprinted
from autometa.learners.transfer.metadelta import MetaDelta
from autometa.learners.transfer.metadelta_plus_plus import MetaDeltaPlusPlus
from autometa.learners.transfer.pmf import PMF
from autometa.learners.transfer.simpleshot import SimpleShot
from autometa.learners.transfer.train_from_scratch import TrainFromScratch

LARGER_PX = (224,)
"""Sizes that bundles take images at where time allows: that of the pretraining of most networks."""
VALIDATIONS = 10
"""Of a training of so many steps, whatever they take."""


@dataclass(frozen=True)
class LearnerSpec:
    """A row of `LEARNERS`: the class, its family, and what its encoder must be like, whatever a
    recipe asks for."""

    cls: type[EpisodicLearner]
    family: Literal["metric", "gradient", "memory", "transfer"]
    encoder: tuple[tuple[str, Any], ...] = ()


LEARNERS: dict[str, LearnerSpec] = {
    "siamese": LearnerSpec(Siamese, "metric"),
    "matching": LearnerSpec(Matching, "metric"),
    "matching_fce": LearnerSpec(MatchingFCE, "metric"),
    "relation": LearnerSpec(Relation, "metric", (("maps", True), ("pools", 2))),
    "prototypical": LearnerSpec(Prototypical, "metric"),
    "gaussian_prototypical": LearnerSpec(GaussianPrototypical, "metric"),
    "semi_supervised_prototypical": LearnerSpec(SemiSupervisedPrototypical, "metric"),
    "maml": LearnerSpec(MAML, "gradient"),
    "fomaml": LearnerSpec(FOMAML, "gradient"),
    "anil": LearnerSpec(ANIL, "gradient"),
    "boil": LearnerSpec(BOIL, "gradient"),
    "reptile": LearnerSpec(Reptile, "gradient"),
    "meta_sgd": LearnerSpec(MetaSGD, "gradient"),
    "maml_plus_plus": LearnerSpec(MAMLPlusPlus, "gradient"),
    "proto_maml": LearnerSpec(ProtoMAML, "gradient"),
    "cavia": LearnerSpec(CAVIA, "gradient"),
    "lstm_meta_learner": LearnerSpec(LSTMMetaLearner, "gradient"),
    "mann": LearnerSpec(MANN, "memory"),
    "meta_networks": LearnerSpec(MetaNetworks, "memory"),
    "snail": LearnerSpec(SNAIL, "memory"),
    "train_from_scratch": LearnerSpec(TrainFromScratch, "transfer"),
    "finetune": LearnerSpec(Finetune, "transfer"),
    "imprinted": LearnerSpec(Imprinted, "transfer"),
    "simpleshot": LearnerSpec(SimpleShot, "transfer"),
    "pmf": LearnerSpec(PMF, "transfer"),
    "adapters": LearnerSpec(Adapters, "transfer"),
    "metadelta": LearnerSpec(MetaDelta, "transfer"),
    "metadelta_plus_plus": LearnerSpec(MetaDeltaPlusPlus, "transfer"),
}


class Recipe(BaseModel):
    """What is trained and how. `options` are those of the learner's class; `ways`, `shots` and
    `queries_per_class` of the training episodes are those of the test unless given (more ways in training
    help prototypical networks, Snell et al. 2017); `unlabelled_per_class` more images come without labels, and
    as many of each of so many `distractors`, classes that an episode does not have.
    `validation_episodes`: how many are drawn, once, to measure on. `data`: episodes are drawn from the pool of all
    images, or taken as the challenge's stream gives them (then validation has no classes of its own unless the
    challenge gives some). `copies`: how many augmented copies of each training image are prepared at most, as far as
    time and room allow, where a trunk is frozen. `larger_px`: sizes of images to take instead of the encoder's where
    time allows, in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learner: str = "prototypical"
    encoder: EncoderSpec = EncoderSpec()
    options: dict[str, Any] = {}
    training: TrainingSettings = TrainingSettings()
    data: Literal["pool", "stream"] = "pool"
    augmentation: Augmentation = NO_AUGMENTATION
    copies: int = Field(default=0, ge=0, le=16)
    larger_px: tuple[int, ...] = ()
    ways: Range | None = None
    shots: Range | None = None
    queries_per_class: int | None = Field(default=None, ge=1)
    unlabelled_per_class: int = Field(default=0, ge=0)
    distractors: int = Field(default=0, ge=0)
    validation_episodes: int = Field(default=100, ge=1)

    @field_validator("ways", "shots")
    @classmethod
    def _check_range(cls, value: tuple[int, int] | None, info: ValidationInfo) -> tuple[int, int] | None:
        least = 2 if info.field_name == "ways" else 1
        if value is not None and value[0] < least:
            raise ValueError(f"starts at {value[0]}, at least {least} is needed")
        if value is not None and value[0] > value[1]:
            raise ValueError(f"runs backwards; write {value[1]}-{value[0]}")
        return value

    @model_validator(mode="after")
    def _check_distractors(self) -> Self:
        if self.distractors and not self.unlabelled_per_class:
            raise ValueError(
                f"distractors: {self.distractors} come without labels: set unlabelled_per_class, too"
            )
        return self

    @model_validator(mode="after")
    def _check_augmentation(self) -> Self:
        images = self.encoder.network in SCRATCH or self.encoder.trainable == "all"
        if self.augmentation.active and ((not images and not self.copies) or self.data == "stream"):
            raise ValueError(
                "augmentation needs images from the pool: use data: pool and a network that is trained as a whole, "
                "or copies"
            )
        if self.copies and (images or not self.augmentation.active or self.augmentation.turn):
            raise ValueError(
                f"copies: {self.copies} is for a frozen trunk and needs an augmentation without turn: leave it out"
            )
        row = LEARNERS.get(self.learner)
        if self.augmentation.turn and row and issubclass(row.cls, ClassifyingLearner):
            raise ValueError(
                f"augmentation.turn makes new classes, which the classifier that {self.learner} is trained with "
                "does not have: leave turn out"
            )
        return self


def build_learner(recipe: Recipe, weights: dict[str, torch.Tensor] | None = None) -> EpisodicLearner:
    """The untrained learner of a recipe on the CPU, the same for the same seed; a backbone is pretrained or
    has `weights`. ConfigError for an unknown learner or option, WeightsError where weights are missing."""
    spec, options = find_learner(recipe.learner), read_options(recipe)
    torch.manual_seed(recipe.training.seed)
    encoder = build_encoder(recipe.encoder.model_copy(update=dict(spec.encoder)), weights)
    return spec.cls(encoder, options)


def read_options(recipe: Recipe) -> Options:
    """All options of a recipe's learner. ConfigError for an unknown learner or option."""
    options_type = find_learner(recipe.learner).cls.options_type
    return validate_settings(options_type, recipe.options, f"options of {recipe.learner}")


def adjust_recipe(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with what the settings of its bundle say of training, without patience, and with larger images of a
    pretrained network where time allows: a bundle with one learner has no other use for its time."""
    training = recipe.training.model_copy(update={"patience": None})
    if settings.meta_batch is not None:
        training = training.model_copy(update={"meta_batch": settings.meta_batch})
    larger_px = recipe.larger_px if recipe.encoder.network in SCRATCH else recipe.larger_px or LARGER_PX
    recipe = recipe.model_copy(update={"training": training, "larger_px": larger_px})
    if "validation_episodes" in settings.model_fields_set:
        recipe = recipe.model_copy(update={"validation_episodes": settings.validation_episodes})
    return recipe if settings.max_steps is None else in_steps(recipe, settings.max_steps)


def in_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with so many training steps, and with a result that does not depend on time: two trainings on one
    machine end with the same bits, unless the budget ends one before."""
    training = recipe.training.model_copy(
        update={"repeatable": True, "max_steps": steps, "validate_every": -(-steps // VALIDATIONS)}
    )
    options = recipe.options
    if "tasks" in find_learner(recipe.learner).cls.options_type.model_fields:
        options = {"tasks": "loop"} | options  # which mode is fastest is measured otherwise
    return recipe.model_copy(update={"training": training, "options": options})


def find_learner(name: str) -> LearnerSpec:
    """The row of `LEARNERS`. ConfigError names those that there are."""
    if name not in LEARNERS:
        raise ConfigError(f"unknown learner `{name}`; known: {', '.join(LEARNERS)}")
    return LEARNERS[name]
