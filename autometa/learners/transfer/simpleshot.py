"""SimpleShot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from autometa.heads import FeatureBatch
from autometa.heads.centroid import nearest_centroid
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled
from autometa.learners.transfer.classification import ClassifyingLearner

CHUNK = 256
"""Images that are embedded at a time for their mean."""


class SimpleShotOptions(Options):
    """Options of `SimpleShot`, explained there."""

    scale: float = Field(default=10.0, gt=0)


class SimpleShot(ClassifyingLearner, MetricLearner):
    """The body is trained by plain classification; at a task features are centred and normalised,
    z = (f(x) - m) / |f(x) - m|, m the mean of the meta-train features, and the nearest class mean answers:
    p = softmax(-scale·|z - c_n|²) (CL2N of Wang et al. 2019, whose hard answers have no `scale`).

    m is the mean over images of training classes, as the body sees them at each validation, also before the first
    step; it is part of the state.
    """

    options_type = SimpleShotOptions

    def __init__(self, encoder: Encoder, options: SimpleShotOptions) -> None:
        super().__init__(encoder, options)
        self.scale = options.scale
        self.register_buffer("mean", torch.zeros(encoder.width))

    mean: torch.Tensor

    def centre_on(self, inputs: torch.Tensor) -> None:
        """Take the mean of images of training classes, given by encoder inputs [n, ...]."""
        self.eval()
        with torch.no_grad():
            embedded = [self.embed(part).float().sum(0) for part in inputs.split(CHUNK)]
            self.mean.copy_(torch.stack(embedded).sum(0) / len(inputs))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Version 0.2.0 also counted the steps of a running mean."""
        state_dict.pop(f"{prefix}steps", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]; |z|², the same for all classes, is left out."""
        centred = replace(batch, support=batch.support - self.mean, query=batch.query - self.mean)
        return self.scale * nearest_centroid(centred.unit().cleaned())
