"""MetaDelta++."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from autometa.heads import FeatureBatch, apply_head
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import MetricLearner, Unlabelled
from autometa.learners.transfer.classification import ClassifyingLearner


class MetaDeltaPlusPlusOptions(Options):
    """Options of `MetaDeltaPlusPlus`, explained there."""

    sharpness: float = Field(default=10.0, gt=0)
    step: float = Field(default=0.2, gt=0, le=1)
    cosine: bool = False


class MetaDeltaPlusPlus(ClassifyingLearner, MetricLearner):
    """The body is trained by plain classification under a head of three layers; at a task, and in validation,
    support and query are centred separately and scaled to unit length, queries are assigned to prototypes by
    optimal transport under -sharpness·|f - c|², and prototypes move by `step` towards the mean of their images
    (the winner of the MetaDL challenge of NeurIPS 2021; successor of Chen et al. 2021). With `cosine` prototypes have
    unit length in that cost, as in the published code.

    It takes classes to have as many queries each; where they are neither declared nor found to, or too few, a
    query is answered by its nearest prototype alone.
    """

    transductive = True
    options_type = MetaDeltaPlusPlusOptions

    def __init__(self, encoder: Encoder, options: MetaDeltaPlusPlusOptions) -> None:
        super().__init__(encoder, options)
        self.options = options
        self.register_buffer("balanced", torch.zeros((), dtype=torch.bool))

    balanced: torch.Tensor

    def declare_balance(self, *, balanced: bool) -> None:
        """Take queries to be as many of each class, or not."""
        self.balanced.fill_(balanced)

    def new_classifier(self, classes: int) -> nn.Module:
        """Embeddings [m, d] → logits [m, classes], by three layers."""
        width = self.encoder.width
        hidden = max(width // 2, 1)
        layers = nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: log of the share of each class in a query."""
        options = self.options
        params = {"sharpness": options.sharpness, "step": options.step, "cosine": options.cosine}
        return apply_head("ot_map", params, batch, balanced=bool(self.balanced))
