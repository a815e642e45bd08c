"""Task adapters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.core.errors import ConfigError
from autometa.heads import FeatureBatch
from autometa.heads.centroid import nearest_centroid
from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.tasks import Task, answer_each_task
from autometa.learners.transfer.classification import ClassifyingLearner
from autometa.learners.transfer.support_training import Params, embed_in_parts, train_on_support

MAP = "map"


class AdaptersOptions(Options):
    """Options of `Adapters`, explained there."""

    steps: int = Field(default=20, ge=0)
    rate: float = Field(default=0.1, gt=0)
    scale: float = Field(default=10.0, gt=0)


class Adapters(ClassifyingLearner):
    """The body is trained by plain classification and then stays; for every task a 1x1 convolution beside every
    convolution of it, and a linear map of the embeddings, are learned on the support by `steps` of Adam on
    the loss of the nearest class mean by cosine, times `scale` (TSA, Li et al. 2022). At first the convolutions
    are zero and the map is the identity: the plain nearest class mean.

    Beside the adapter of a frozen backbone, whose two layers are 1x1 convolutions, it works on the features.
    Adam's steps all have one size: `rate` is shared among the inputs of a map, so that it says by how much an
    output may change whatever the width. ConfigError for a body without convolutions.
    """

    options_type = AdaptersOptions

    def __init__(self, encoder: Encoder, options: AdaptersOptions) -> None:
        super().__init__(encoder, options)
        self.options = options
        if not find_convolutions(encoder):
            raise ConfigError(
                f"adapters: the trained part of the {type(encoder).__name__} has no convolutions with odd "
                "kernels; set encoder.trainable to 0, or choose a convolutional encoder.network"
            )

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries."""
        return answer_each_task(self, episodes, Adapters.task_logits)

    def task_logits(self, task: Task) -> torch.Tensor:
        """Logits [q, ways] of the queries of one task."""

        def loss(params: Params) -> torch.Tensor:
            support = self.features(params, task.support)
            return F.cross_entropy(self._score(task.embedded_batch(support, support)), task.support_labels)

        start = self.initial()
        params = train_on_support(
            loss, start, lambda name: self.options.rate / start[name].shape[1], self.options.steps
        )
        support, query = (self.features(params, part) for part in (task.support, task.query))
        return self._score(task.embedded_batch(support, query))

    def initial(self) -> Params:
        """A convolution [out, in] of zeros for every one of the body, by the name of its weights; the
        identity [d, d] as map."""
        weights = find_convolutions(self.encoder)
        zeros = {name: weight.new_zeros(weight.shape[:2]) for name, weight in weights.items()}
        return zeros | {MAP: torch.eye(self.encoder.width, device=next(self.parameters()).device)}

    def features(self, params: Params, inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, d] of inputs with these adapters. A 1x1 convolution beside one with an odd kernel is
        an addition to the middle of that kernel."""
        body = {}
        for name, weight in find_convolutions(self.encoder).items():
            height, width = weight.shape[2] // 2, weight.shape[3] // 2
            body[name] = weight + F.pad(params[name][..., None, None], (width, width, height, height))
        return embed_in_parts(self.encoder, body, inputs) @ params[MAP].T

    def _score(self, batch: FeatureBatch) -> torch.Tensor:
        """Logits [q, ways] of an embedded task."""
        return self.options.scale * nearest_centroid(batch, metric="cosine")[0]


def find_convolutions(encoder: Encoder) -> Params:
    """Weights [out, in, k, k] of the convolutions of an encoder that mix channels, k odd, by name."""
    found = {
        f"{name}.weight": module.weight
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and all(k % 2 for k in module.kernel_size)
    }
    return {name: weight.detach() for name, weight in found.items()}
