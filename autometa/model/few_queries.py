"""A few images at a time for a support set that stays: answered one by one, with no work that the support needs.

Optimal transport needs two queries for each class or more; with fewer, a portfolio answers each image by the class
means. Those of the support are kept, and so an image costs its networks, its metrics and one product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import Source, View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.machine import one_thread
from autometa.heads import Metric
from autometa.heads.modes import Key, collect_keys, join_features
from autometa.model.artifact import MetricKey
from autometa.model.inputs import list_inputs

Images = NDArray[np.uint8]
Moved = dict[tuple[View, Key], torch.Tensor]
FEW_IMAGES = 16
"""So many images are embedded without looking whether they are known, and are not kept."""


@dataclass(frozen=True)
class Mover:
    """Puts features through the metrics of a portfolio. Projections are taken in float32, whatever they are kept in:
    converting one takes longer than the product with an image."""

    shelf: BackboneShelf
    metrics: Mapping[MetricKey, Metric]
    _ready: dict[MetricKey, Metric] = field(default_factory=dict, init=False)

    def look(self, store: FeatureStore, views: Sequence[View], keys: Sequence[Key], images: Images) -> Moved:
        """Features of a few images, by view and key; each network runs once."""
        passes: dict[Source, torch.Tensor] = {}
        moved: Moved = {}
        for view in views:
            if view.source not in passes:
                passes[view.source] = store.look(view, images)
            picked: dict[tuple[str, ...], torch.Tensor] = {}
            with one_thread():
                for key in keys:
                    moved[view, key] = self._move(view, key, passes[view.source], picked)
        return moved

    def _move(
        self, view: View, key: Key, output: torch.Tensor, picked: dict[tuple[str, ...], torch.Tensor]
    ) -> torch.Tensor:
        """Features [n, d] of what a network gave [n, sum of widths] after the metrics of a key."""
        parts = []
        for one, name in list_inputs([view], key):
            if one.layers not in picked:
                picked[one.layers] = self.shelf(view.backbone, view.variant).pick(output, one.layers)
            parts.append(self._metric((one, name))(picked[one.layers]))
        return join_features(parts)

    def _metric(self, key: MetricKey) -> Metric:
        if key not in self._ready:
            metric = self.metrics[key]
            if metric.projection is not None and metric.projection.dtype != torch.float32:
                metric = replace(metric, projection=metric.projection.float())
            self._ready[key] = metric
        return self._ready[key]


def side_by_side(
    moved: Mapping[tuple[View, Key], torch.Tensor],
    names: Sequence[str],
    views: Sequence[View],
    weights: Sequence[float],
) -> dict[Key, torch.Tensor]:
    """The features [n, d] of the views next to each other, for each key that the modes of these names ask for, so
    that inner products are the weighted mean of those in the views."""
    shares = [weight / sum(weights) for weight in weights]
    return {
        key: torch.cat(
            [moved[view, key] * share**0.5 for view, share in zip(views, shares, strict=True)], dim=1
        )
        for key in collect_keys(names)
    }
