"""The meta-learner that MetaDelta has several of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import nn

from autometa.backbones import copy_sharing_tensors
from autometa.core.budget import TimeBudget
from autometa.core.errors import DataError
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.heads import FeatureBatch, apply_head
from autometa.heads.soft_kmeans import to_nearest_mean
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled
from autometa.learners.transfer.classification import ClassifyingLearner

SCALE = 10.0
"""Of the squared distances by which the nearest class mean answers."""


class MetaDeltaOptions(Options):
    """Options of `MetaDelta`, explained there."""

    turns: int = Field(default=1, ge=1, le=4)
    rotation: float = Field(default=0.5, ge=0, lt=1)
    sharpnesses: tuple[float, ...] = (1.0, 5.0, 20.0)
    renormalise: bool = False

    @field_validator("sharpnesses")
    @classmethod
    def _check_sharpnesses(cls, sharpnesses: tuple[float, ...]) -> tuple[float, ...]:
        if not sharpnesses or min(sharpnesses) <= 0:
            raise ValueError("give at least one sharpness, all above 0")
        return sharpnesses


class MetaDelta(ClassifyingLearner, MetricLearner):
    """The body is trained by classification of (1 - rotation)·CE(class) + rotation·CE(turn), validated by the
    nearest class mean; at a task class means are refined by soft k-means over the queries (the transductive
    inference of MCT, Kye et al. 2020), all on features of unit length (Chen et al. 2021).

    Training images come in so many `turns` of 90°, of which the first is none: of C classes, class c turned
    t times is training class c + t·C. With one turn, as where no turned images are given, there is no rotation
    loss. How sharp soft k-means is, is chosen out of `sharpnesses` on validation episodes when training ends,
    and kept with the weights; until then the nearest class mean answers. With `renormalise` refined means have unit
    length in the distances to them, as in the published code.
    """

    transductive = True
    options_type = MetaDeltaOptions

    def __init__(self, encoder: Encoder, options: MetaDeltaOptions) -> None:
        super().__init__(encoder, options)
        self.options = options
        self.register_buffer("sharpness", torch.zeros(()))

    sharpness: torch.Tensor

    def new_classifier(self, classes: int) -> nn.Module:
        """Embeddings [m, d] → logits [m, C + turns], of classes and, where there are several, of turns.
        DataError where `classes` are not C for every turn."""
        turns = self.options.turns
        if classes % turns:
            raise DataError(f"{classes} training classes are not as many for each of {turns} turns")
        return nn.Linear(self.encoder.width, classes // turns + (turns if turns > 1 else 0))

    def class_loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of embeddings [m, d] of training classes [m]."""
        logits, turns, rotation = self.class_logits(features), self.options.turns, self.options.rotation
        if turns == 1:
            return F.cross_entropy(logits, labels)
        classes = logits.shape[1] - turns
        of_class = F.cross_entropy(logits[:, :classes], labels % classes)
        of_turn = F.cross_entropy(logits[:, classes:], labels // classes)
        return (1 - rotation) * of_class + rotation * of_turn

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        if not self.sharpness:
            return to_nearest_mean(batch.cleaned(), sharpness=SCALE)
        params = {"sharpness": float(self.sharpness), "renormalise": self.options.renormalise}
        return apply_head("soft_kmeans", params, batch)

    def choose_options(
        self, inputs: torch.Tensor, validation: ValidationEpisodes, budget: TimeBudget, task_s: float = 0.0
    ) -> str:
        """Choose the sharpness that is most accurate; none, the nearest class mean, where none is better. Where
        time is out it is the first."""
        first = self.options.sharpnesses[0]
        self.sharpness.fill_(first)
        if budget.left_s() <= 0:
            return f"soft k-means of sharpness {first:g}: no time is left to choose"
        batches, accuracies = self.embed_validation(inputs, validation), {}
        for sharpness in (0.0, *self.options.sharpnesses):
            self.sharpness.fill_(sharpness)
            accuracies[sharpness] = self.answer_embedded(batches, validation).mean
        chosen = max(accuracies, key=lambda sharpness: accuracies[sharpness])
        self.sharpness.fill_(chosen)
        decoder = f"soft k-means of sharpness {chosen:g}" if chosen else "nearest class mean"
        return f"{decoder}: {100 * accuracies[chosen]:.1f} on {len(validation.episodes)} validation episodes"

    def slowest(self) -> MetaDelta:
        """A copy, sharing weights, that refines class means."""
        copy = copy_sharing_tensors(self)
        copy.sharpness = torch.full_like(self.sharpness, max(self.options.sharpnesses))
        return copy
