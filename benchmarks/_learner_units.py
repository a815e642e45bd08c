"""What `learners.py` measures: each learner with its recipe on an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autometa.learners.encoder import SCRATCH, EncoderSpec
from autometa.learners.hooks import ClassTrained
from autometa.learners.recipe import LEARNERS, Recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.transfer.classification import CLASSIFICATION_SPEC

REFERENCE = "easyfsl"
SMALL, LARGE = 28, 128
"""Pixels of images for networks from scratch, and for pretrained ones."""
CLASSIFICATION = {
    "ways": CLASSIFICATION_SPEC.ways,
    "shots": CLASSIFICATION_SPEC.shots,
    "queries_per_class": CLASSIFICATION_SPEC.queries_per_class,
}
"""Learners that are trained by plain classification."""
LIKE_AUTHORS = {"norm": "per_step_transductive", "first_order_share": 0.0}
"""Settings of the code of MAML++."""
OVERRIDES: dict[str, dict[str, Any]] = {
    "semi_supervised_prototypical": {"unlabelled_per_class": 5, "options": {"transductive": True}},
    "reptile": {
        "training": {"optimizer": "sgd", "learning_rate": 1.0, "clip": None},
        "options": {"rate": 0.01},
        "queries_per_class": 10,
    },
    **{name: {"options": {"steps": 2}} for name in ("anil", "boil", "proto_maml")},
    "maml_plus_plus": {"options": LIKE_AUTHORS},
    "lstm_meta_learner": {"options": {"norm": "support"}},
    "mann": {"options": {"own_rows": True, "rows": "task"}},
    "relation": {"options": {"merge": "mean", "reduction": "normalised", "loss": "cross_entropy"}},
    **{name: CLASSIFICATION for name, spec in LEARNERS.items() if issubclass(spec.cls, ClassTrained)},
}
"""Recipe fields of learners that are trained in another way. A semi-supervised learner uses the queries of a test
task as its unlabelled images, so it sees more than the others."""
ON_PRETRAINED: dict[str, dict[str, Any]] = {
    **{name: {"options": {"rate": 1.0}} for name in ("maml", "meta_sgd", "maml_plus_plus")},
    "fomaml": {"options": {"rate": 0.1, "head": "prototypes"}, "training": {"learning_rate": 3e-4}},
    "anil": {
        "options": {"rate": 0.1, "steps": 5, "head": "prototypes"},
        "training": {"learning_rate": 3e-4},
    },
    "reptile": {
        "options": {"rate": 3e-4, "test_steps": 5, "head": "prototypes"},
        "training": {"optimizer": "adam", "learning_rate": 1e-3},
    },
    "lstm_meta_learner": {"options": {"head": "prototypes"}, "training": {"learning_rate": 3e-4}},
    "siamese": {"options": {"loss": "cross_entropy"}, "training": {"learning_rate": 3e-4}},
}
"""Fields on a pretrained network, beside those above: inner rates, starts of heads and rates of training as in the
bundles, some of which make more steps at a task. The vectors of such a network are short, so a head moves far.
Gradients of first order do not see that a head comes from the images, unless it starts as their prototypes; where the
head alone moves, a start from them gains more, too."""
FROM_SCRATCH = ("train_from_scratch",)
"""Learners that do not use a pretrained network."""


@dataclass(frozen=True)
class Unit:
    """One measurement: a learner on an encoder, or the reference instead of an encoder."""

    dataset: str
    encoder: str
    learner: str

    def name(self, what: str) -> str:
        """Name of a row."""
        between = "" if self.encoder in ("conv4", REFERENCE) else f"{self.encoder.rsplit('_', 1)[-1]}/"
        return f"learners/{self.learner}/{self.dataset}/{between}{what}"

    @property
    def last(self) -> str:
        """The row that shows that the unit was measured."""
        return self.name("reference" if self.encoder == REFERENCE else "episode_s")

    def recipe(self, channels: int | None = None, inner_steps: int | None = None, **training: Any) -> Recipe:
        """The recipe of the learner, on a network from scratch of so many channels; a gradient-based one makes so
        many inner steps, in training and at test."""
        network = "conv4" if self.encoder == REFERENCE else self.encoder
        px = SMALL if network in SCRATCH else LARGE
        fields = dict(OVERRIDES.get(self.learner, {}))
        if px == LARGE:
            for part, values in ON_PRETRAINED.get(self.learner, {}).items():
                fields[part] = fields.get(part, {}) | values
        if inner_steps is not None and LEARNERS[self.learner].family == "gradient":
            fields["options"] = fields.get("options", {}) | {"steps": inner_steps, "test_steps": inner_steps}
        settings = TrainingSettings(**fields.get("training", {}) | training)
        encoder = EncoderSpec(network=network, px=px, trainable=0)
        if channels is not None:
            encoder = encoder.model_copy(update={"channels": channels})
        return Recipe(**fields | {"learner": self.learner, "encoder": encoder, "training": settings})
