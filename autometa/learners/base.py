"""What all episodic learners share: an encoder, a loss on a batch of episodes, scores for their queries."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes


class Options(BaseModel):
    """Options of a learner; those of each class say what there is to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EpisodicLearner(nn.Module):
    """Learns from episodes how to answer episodes; any ways, any shots, within a batch as well.

    Calling it gives scores float32 [b, q, n], -inf for classes that an episode does not have; their softmax
    over classes are the probabilities.
    """

    options_type: ClassVar[type[Options]] = Options
    mixed_precision = True
    """Whether a GPU may compute the loss in bfloat16."""

    def __init__(self, encoder: Encoder, options: Options) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries."""
        raise NotImplementedError

    def loss(self, episodes: InputEpisodes) -> torch.Tensor:
        """What training minimises: a scalar, the mean over queries of episodes with labels."""
        return mean_nll(self(episodes), episodes.query_labels)

    def accumulate(self, episodes: InputEpisodes) -> float:
        """Add the gradients of the loss to the parameters; the loss."""
        loss = self.loss(episodes)
        loss.backward()
        return float(loss.detach())

    def validate(self, inputs: torch.Tensor, validation: ValidationEpisodes) -> Answer:
        """The answer on validation episodes over images whose `inputs` [n, ...] are given; in evaluation
        mode, without gradients."""
        self.eval()
        device = next(self.parameters()).device
        with torch.no_grad():
            scores = []
            for batch in validation.batches:
                episodes = InputEpisodes.of_rows(inputs, batch)
                scores.append(self(episodes.to(str(device))).float().cpu())
        return validation.measure_with_loss(scores)


def mean_nll(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of labels [b, q] (-1: ignored) under softmax of scores [b, q, n]."""
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=-1)
