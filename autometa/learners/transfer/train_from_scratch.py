"""Training from scratch: what a task teaches without any meta-training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field

from autometa.core.errors import ConfigError
from autometa.learners.base import EpisodicLearner, Options
from autometa.learners.encoder import Encoder, ScratchEncoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.norm import forget_statistics, replace_batch_norm, set_phase
from autometa.learners.gradient.tasks import Task, answer_each_task
from autometa.learners.transfer.support_training import (
    Params,
    add_head,
    compute_logits,
    embed_in_parts,
    extract_body,
    train_on_support,
)

FEWEST_STEPS = 10


class TrainFromScratchOptions(Options):
    """Options of `TrainFromScratch`, explained there."""

    steps: int = Field(default=30, ge=1)
    rate: float = Field(default=0.005, gt=0)
    images: int = Field(default=2000, ge=1)


class TrainFromScratch(EpisodicLearner):
    """For every task a small network with random weights is trained on the support, by `steps` of Adam with
    `rate`, as the baseline of the Cross-Domain MetaDL challenge (Carrión-Ojeda et al. 2022) is. Large supports
    get fewer steps, so that a task costs no more than passes of `images` images (or of ten steps).

    The weights are drawn once, with the seed of the recipe; every task starts from them and an output of zero.
    Batch norm takes the statistics of the support. ConfigError for a pretrained network.
    """

    options_type = TrainFromScratchOptions

    def __init__(self, encoder: Encoder, options: TrainFromScratchOptions) -> None:
        super().__init__(encoder, options)
        if not isinstance(encoder, ScratchEncoder):
            raise ConfigError(
                f"train_from_scratch: the encoder is a pretrained {type(encoder).__name__}; "
                "set encoder.network to conv4 or resnet12"
            )
        replace_batch_norm(encoder, "support", 0)
        encoder.requires_grad_(False)
        self.options = options

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries."""
        return answer_each_task(self, episodes, TrainFromScratch.task_logits)

    def task_logits(self, task: Task) -> torch.Tensor:
        """Logits [q, ways] of the queries of one task."""

        def loss(params: Params) -> torch.Tensor:
            return F.cross_entropy(
                self._compute_logits(params, task.support, recording=True), task.support_labels
            )

        start = add_head(dict(self.encoder.named_parameters()), self.encoder.width, task)
        params = train_on_support(loss, start, lambda _: self.options.rate, self.steps(len(task.support)))
        self._compute_logits(params, task.support, recording=True)
        logits = self._compute_logits(params, task.query, recording=False)
        forget_statistics(self.encoder)
        return logits

    def steps(self, images: int) -> int:
        """Steps on a support of so many images."""
        return min(self.options.steps, max(self.options.images // images, FEWEST_STEPS))

    def _compute_logits(self, params: Params, inputs: torch.Tensor, *, recording: bool) -> torch.Tensor:
        set_phase(self.encoder, 0, recording=recording)
        return compute_logits(
            params, embed_in_parts(self.encoder, extract_body(params), inputs, whole=recording)
        )
