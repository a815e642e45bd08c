"""SimpleShot."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

from autometa.heads import FeatureBatch
from autometa.heads.centroid import nearest_centroid
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled
from autometa.learners.transfer.classification import ClassifyingLearner

MOMENTUM = 0.05
"""What the features of a step add to the running mean, once there were enough steps for it."""


class SimpleShotOptions(Options):
    """Options of `SimpleShot`, explained there."""

    scale: float = Field(default=10.0, gt=0)


class SimpleShot(ClassifyingLearner, MetricLearner):
    """The body is trained by plain classification; at a task features are centred and normalised,
    z = (f(x) - m) / |f(x) - m|, m the mean of the meta-train features, and the nearest class mean answers:
    p = softmax(-scale·|z - c_n|²) (CL2N of Wang et al. 2019, whose hard answers have no `scale`).

    m is a running mean over the images of the training steps, part of the state; zero before the first.
    """

    options_type = SimpleShotOptions

    def __init__(self, encoder: Encoder, options: SimpleShotOptions) -> None:
        super().__init__(encoder, options)
        self.scale = options.scale
        self.register_buffer("mean", torch.zeros(encoder.width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    mean: torch.Tensor
    steps: torch.Tensor

    def class_logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [m, classes] of embeddings [m, d], whose mean is remembered in training."""
        if self.training:
            self.steps += 1
            share = max(1 / int(self.steps), MOMENTUM)
            self.mean.lerp_(features.detach().mean(0), share)
        return super().class_logits(features)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]; |z|², the same for all classes, is left out."""
        centred = replace(batch, support=batch.support - self.mean, query=batch.query - self.mean)
        return self.scale * nearest_centroid(centred.unit().cleaned())
