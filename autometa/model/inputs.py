"""What a portfolio works on: images with their identities, and the inputs of its modes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import LAST, STAGES, View
from autometa.backbones.feature_store import FeatureStore
from autometa.data.images import hash_images
from autometa.heads import Metric
from autometa.heads.modes import Key, join_features
from autometa.model.artifact import MetricKey

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class HashedImages:
    """Images uint8 [n, 3, h, w] and their identities."""

    images: Images
    keys: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", hash_images(self.images))


def list_inputs(views: Sequence[View], key: Key) -> list[MetricKey]:
    """The inputs of the modes that ask for `key`, over all views: with their layers joined, or one by one. A view of
    the last layer alone stands for the usual layers."""
    metric, single_layers = key
    found = []
    for view in views:
        joined = STAGES if view.layers == LAST else view.layers
        layers = [(layer,) for layer in joined] if single_layers else [joined]
        found += [(replace(view, layers=each), metric) for each in layers]
    return found


def apply_metrics(
    metrics: Mapping[MetricKey, Metric], store: FeatureStore, view: View, key: Key, keys: Sequence[Hashable]
) -> torch.Tensor:
    """Features [n, d] of embedded images after the metrics of the inputs of a view, side by side."""
    return join_features([metrics[one](store.take(one[0], keys)) for one in list_inputs([view], key)])
