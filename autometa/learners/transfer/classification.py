"""Meta-training as plain classification: one classifier over all training classes, thrown away afterwards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autometa.core.errors import DataError
from autometa.data.episodes import EpisodeSpec
from autometa.learners.base import EpisodicLearner
from autometa.learners.episodes import InputEpisodes
from autometa.learners.unregistered import Unregistered

CLASSIFICATION_SPEC = EpisodeSpec(ways=(32, 32), shots=(1, 1), queries_per_class=1)
"""Form of training episodes where classification is learned: many classes, and two images of each."""


class ClassifyingLearner(EpisodicLearner):
    """A learner whose loss is the cross-entropy of a classifier over all training classes on the embeddings
    of all images of an episode; what it does at a task is its own."""

    _classifier: Unregistered[nn.Module] | None = None

    def begin_training(self, classes: int) -> nn.Module:
        """The classifier over so many classes, to be trained along; it is no part of the learner's state."""
        classifier = self.new_classifier(classes)
        self._classifier = Unregistered(classifier)
        return classifier

    def new_classifier(self, classes: int) -> nn.Module:
        """Embeddings [m, d] → logits [m, classes]."""
        return nn.Linear(self.encoder.width, classes)

    def loss(self, episodes: InputEpisodes) -> torch.Tensor:
        """Mean cross-entropy of all images, support and query alike. DataError where the episodes do not say
        which training classes theirs are."""
        images, labels = collect_images(episodes)
        features = self.encoder.vectors(images).float()
        with torch.autocast(features.device.type, enabled=False):
            return self.class_loss(features, labels)

    def class_loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of embeddings [m, d] of training classes [m]."""
        return F.cross_entropy(self.class_logits(features), labels)

    def class_logits(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [m, classes] of embeddings [m, d]."""
        assert self._classifier is not None, "begin_training comes before the first loss"
        logits: torch.Tensor = self._classifier.network(features)
        return logits


def collect_images(episodes: InputEpisodes) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of a batch of episodes without padding [m, ...], and the training class of each [m].

    DataError where the episodes do not say which training classes theirs are.
    """
    if episodes.classes is None:
        raise DataError(
            "classification needs to know which training class an image is of, and these episodes have "
            "classes = None: draw them from a pool (data: pool), or give tasks their original_class_idx"
        )
    images, labels = [], []
    for part, own in ((episodes.support, episodes.support_labels), (episodes.query, episodes.query_labels)):
        real = own >= 0
        images.append(part[real])
        labels.append(episodes.classes.gather(1, own.clamp(min=0))[real])
    return torch.cat(images), torch.cat(labels)
