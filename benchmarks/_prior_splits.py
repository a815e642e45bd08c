"""Class splits of a sample of a dataset, on which `priors.py` asks views and portfolios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from _prior_data import Sample

from autometa.backbones import STAGES, View
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.accuracy import Scores
from autometa.evaluation.validation_episodes import ValidationEpisodes, gather_features
from autometa.heads.class_statistics import ClassStatistics
from autometa.heads.metrics import find_metric
from autometa.heads.modes import MODES, apply_modes
from autometa.heads.solve import factor_products

MODE = "root"
KEY = MODES[MODE].keys[0]
FORM = EpisodeSpec(ways=(2, 20), shots=(1, 5), queries_per_class=5)
EPISODES = 60
TRAIN_SHARE, VALIDATION_SHARE, FEW_CLASSES = 0.6, 0.35, 12
VALIDATION, REST = 0, 1
"""Groups of meta-train classes: held out in turn, and all others."""


@dataclass
class Split:
    """Classes of a sample for meta-training, of which some are held out to choose by, and for the test. Views are
    asked in one mode, `MODE`, with metrics that were fitted to meta-train classes only. `group`: what the sample has
    in common with others that show the same pictures."""

    sample: Sample
    seed: int
    group: str
    few: bool = False
    _products: dict[tuple[View, str], torch.Tensor] = field(default_factory=dict, init=False)
    _known: dict[tuple[frozenset[tuple[View, float]], str], Scores] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        classes = self.sample.pool.classes
        rng = np.random.default_rng((self.seed, self.few))
        order = rng.permutation(classes)
        n_train = min(FEW_CLASSES, classes // 2) if self.few else int(TRAIN_SHARE * classes)
        train, n_validation = order[:n_train], max(int(VALIDATION_SHARE * n_train), 2)
        self.train: Rows = np.sort(train)
        self.parts: dict[str, Rows] = {
            "validation": np.sort(train[:n_validation]),
            "test": np.sort(order[n_train:]),
        }
        self._rng = rng

    @cached_property
    def episodes(self) -> dict[str, ValidationEpisodes]:
        """Of the classes that are held out and of those of the test."""
        return {
            part: ValidationEpisodes(
                sample_episodes(pool, np.arange(pool.classes), FORM, EPISODES, self._rng)
            )
            for part, pool in ((part, self._pool(part)) for part in self.parts)
        }

    def scores(self, views: Mapping[View, float], part: str) -> Scores:
        """Normalised accuracy in each episode of a part, of a portfolio of these views with these weights."""
        key = frozenset((view, round(weight, 3)) for view, weight in views.items()), part
        if key not in self._known:
            total = sum(views.values())
            fused = torch.stack([self._product(view, part) * (w / total) for view, w in views.items()]).sum(0)
            features, answers = factor_products(fused), []
            for batch in self.episodes[part].batches:
                answers.append(apply_modes([MODE], {KEY: gather_features(features, batch)}, balanced=True)[0])
            self._known[key] = self.episodes[part].measure(answers).accuracies
        return self._known[key]

    def accuracy(self, views: Mapping[View, float], part: str) -> float:
        """Mean of `scores`."""
        return float(self.scores(views, part).mean())

    def descriptors(self, first: View) -> dict[str, float]:
        """What is known of the meta-train classes once the first view has embedded them."""
        pool = self.sample.pool
        rows = np.flatnonzero(np.isin(pool.labels, self.train))
        pixels = pool.images[rows].astype(np.float32) / 255
        features = torch.nn.functional.normalize(
            self.sample.joined(first, STAGES)[torch.from_numpy(rows)], dim=1
        )
        labels = torch.from_numpy(np.searchsorted(self.train, pool.labels[rows]))
        means = torch.stack([features[labels == c].mean(0) for c in range(len(self.train))])
        within = float(((features - means[labels]) ** 2).sum(1).mean())
        between = float(((means - means.mean(0)) ** 2).sum(1).mean())
        grey = pixels.mean(1)
        return {
            "log_classes": float(np.log(len(self.train))),
            "log_images_per_class": float(np.log(len(rows) / len(self.train))),
            "brightness": float(grey.mean()),
            "contrast": float(grey.std(axis=(1, 2)).mean()),
            "colour": float(pixels.std(axis=1).mean()),
            "edges": float(np.abs(np.diff(grey, axis=2)).mean()),
            "log_between_to_within": float(np.log(between / within)),
            "first_accuracy": self.accuracy({first: 1.0}, "validation"),
        }

    def _pool(self, part: str) -> ImagePool:
        """The images of a part alone, their classes from 0 on."""
        pool, classes = self.sample.pool, self.parts[part]
        rows = np.flatnonzero(np.isin(pool.labels, classes))
        labels = np.searchsorted(classes, pool.labels[rows])
        return ImagePool(pool.images[rows], labels, np.zeros(len(classes), np.int64), pool.datasets)

    def _product(self, view: View, part: str) -> torch.Tensor:
        """Inner products of the images of a part in a view, after the metric of `MODE`."""
        if (view, part) not in self._products:
            features = self.sample.joined(view, STAGES)
            labels = self.sample.pool.labels
            statistics, power = ClassStatistics(), find_metric(KEY[0]).power
            for group in (VALIDATION, REST):
                held = np.isin(self.train, self.parts["validation"])
                of_group = np.isin(labels, self.train[held if group == VALIDATION else ~held])
                rows = torch.from_numpy(np.flatnonzero(of_group))
                statistics.add(features[rows], torch.from_numpy(labels)[rows], group, [power])
            for each, without in (("validation", VALIDATION), ("test", None)):
                rows = torch.from_numpy(np.flatnonzero(np.isin(labels, self.parts[each])))
                moved = statistics.move(features[rows], KEY[0], without)
                self._products[view, each] = moved @ moved.T
        return self._products[view, part]
