"""Imprinted weights on a body that was trained with a cosine classifier."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from autometa.heads import FeatureBatch
from autometa.heads.features import unit
from autometa.heads.imprinted import imprinted_weights
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled
from autometa.learners.transfer.classification import ClassifyingLearner


class ImprintedOptions(Options):
    """Options of `Imprinted`, explained there."""

    scale: float = Field(default=10.0, gt=0)


class Cosines(nn.Module):
    """Embeddings [m, d] → cosines [m, classes] with a learned weight for every class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return unit(features) @ unit(self.weight).T


class Imprinted(ClassifyingLearner, MetricLearner):
    """The body is trained by classification with s·cos(f(x), w_c), as in Baseline++ (Chen et al. 2019); at a
    task w_n is the normalised mean of the normalised embeddings of class n (Qi et al. 2018). s is learned,
    from `scale` on, and kept."""

    options_type = ImprintedOptions
    scales = ("log_scale",)

    def __init__(self, encoder: Encoder, options: ImprintedOptions) -> None:
        super().__init__(encoder, options)
        self.log_scale = nn.Parameter(torch.tensor(options.scale).log())

    def new_classifier(self, classes: int) -> nn.Module:
        """Embeddings [m, d] → cosines [m, classes]."""
        return Cosines(self.encoder.width, classes)

    def class_logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [m, classes] of embeddings [m, d]."""
        return super().class_logits(features) * self.log_scale.exp()

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]."""
        return imprinted_weights(batch) * self.log_scale.exp()
