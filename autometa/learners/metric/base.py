"""What the metric-based learners share: all images embedded in one pass, then compared."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from autometa.data.episodes import EpisodeBatch
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.heads import FeatureBatch
from autometa.learners.base import EpisodicLearner, Options, mean_nll
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes

CHUNK = 256
"""Images that are embedded at a time outside training."""


@dataclass(frozen=True)
class Unlabelled:
    """Embeddings of images without labels [b, u, d]; `real` bool [b, u] tells them from padding."""

    features: torch.Tensor
    real: torch.Tensor


class MetricLearner(EpisodicLearner):
    """A learner whose answer is a function of embeddings: of vectors [d], or of flattened feature maps where
    `on_maps`. `width` is d."""

    on_maps = False
    transductive = False

    def __init__(self, encoder: Encoder, options: Options) -> None:
        super().__init__(encoder, options)
        self.width = math.prod(encoder.shape) if self.on_maps else encoder.width

    @abstractmethod
    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n] of embedded episodes."""

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [n, ...] of the encoder → embeddings float32 [n, d]."""
        if self.on_maps:
            return self.encoder(inputs).flatten(1)
        return self.encoder.vectors(inputs)

    def embed_episodes(self, episodes: InputEpisodes) -> tuple[FeatureBatch, Unlabelled | None]:
        """All images of a batch of episodes through the encoder at once; padding becomes zero."""
        parts = [episodes.support, episodes.query]
        if episodes.unlabelled is not None:
            parts.append(episodes.unlabelled)
        sizes = [part.shape[:2] for part in parts]
        images = torch.cat([part.flatten(0, 1) for part in parts])
        real = torch.cat([(episodes.support_labels >= 0).flatten(), (episodes.query_labels >= 0).flatten()])
        real = F.pad(real, (0, len(images) - len(real)), value=True)
        given = images if bool(real.all()) else images[real]
        parts_given = [given] if self.training else given.split(CHUNK)  # batch norm trains on all at once
        features = torch.cat([self.embed(part) for part in parts_given]).float()
        if len(features) < len(images):  # padding must not touch the statistics of batch norm
            features = features.new_zeros(len(images), self.width).index_put((real,), features)
        counts = [int(b * m) for b, m in sizes]
        support, query, *rest = (
            part.unflatten(0, size) for part, size in zip(features.split(counts), sizes, strict=True)
        )
        batch = FeatureBatch(
            support, episodes.support_labels, query, episodes.ways, query_real=episodes.query_labels >= 0
        )
        unlabelled = None
        if rest:
            real = torch.ones(rest[0].shape[:2], dtype=torch.bool, device=rest[0].device)
            unlabelled = Unlabelled(rest[0], real)
        return batch, unlabelled

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries."""
        return self.compare(*self.embed_episodes(episodes))

    def loss(self, episodes: InputEpisodes) -> torch.Tensor:
        """The loss of the embedded episodes; they are compared in float32 whatever they are embedded in."""
        batch, unlabelled = self.embed_episodes(episodes)
        with torch.autocast(batch.query.device.type, enabled=False):
            return self.embedded_loss(batch, unlabelled, episodes.query_labels)

    def embedded_loss(
        self, batch: FeatureBatch, unlabelled: Unlabelled | None, query_labels: torch.Tensor
    ) -> torch.Tensor:
        """The loss on embedded episodes; query labels [b, q], -1 for padding."""
        return mean_nll(self.compare(batch, unlabelled), query_labels)

    def validate(self, inputs: torch.Tensor, validation: ValidationEpisodes) -> Answer:
        """The answer on validation episodes; every image is embedded once, whatever the episodes."""
        return self.answer_embedded(self.embed_validation(inputs, validation), validation)

    def embed_validation(self, inputs: torch.Tensor, validation: ValidationEpisodes) -> list[FeatureBatch]:
        """The batches of validation episodes over images whose `inputs` [n, ...] are given."""
        self.eval()
        device = next(self.parameters()).device
        with torch.no_grad():
            used = torch.cat(
                [rows.flatten() for b in validation.batches for rows in (b.support_rows, b.query_rows)]
            ).unique()
            features = torch.cat([self.embed(inputs[part].to(device)) for part in used.split(CHUNK)])
            return [gather_episodes(features, used, batch) for batch in validation.batches]

    def answer_embedded(self, batches: Sequence[FeatureBatch], validation: ValidationEpisodes) -> Answer:
        """The answer on validation episodes that are embedded already."""
        with torch.no_grad():
            return validation.measure_with_loss([self.compare(batch).float().cpu() for batch in batches])


def gather_episodes(features: torch.Tensor, used: torch.Tensor, batch: EpisodeBatch) -> FeatureBatch:
    """A batch of episodes out of the features of the rows `used` (ascending); padding becomes zero."""
    device = features.device
    return FeatureBatch(
        features[torch.searchsorted(used, batch.support_rows).to(device)],
        batch.support_labels.to(device),
        features[torch.searchsorted(used, batch.query_rows).to(device)],
        batch.ways.to(device),
        query_real=(batch.query_labels >= 0).to(device),
    ).cleaned()
