"""Spaces: what images become once, and how a few labelled ones of them answer for others.

A support set is kept as it was encoded, so that examples are added without training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones.engine_choices import WORTH_BUILDING
from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import MemoryBudget
from autometa.core.machine import one_thread
from autometa.data.images import hash_images
from autometa.data.test_spec import FORMAT_PX
from autometa.evaluation.mixing import average
from autometa.heads import FeatureBatch, apply_head
from autometa.heads.class_means import SupportMeans
from autometa.heads.features import unit
from autometa.heads.modes import UNFITTED, Key, apply_modes, collect_keys
from autometa.heads.ridge import ridge_weights
from autometa.model.few_queries import FEW_IMAGES, side_by_side
from autometa.model.fitted_learner import FittedLearner
from autometa.model.inputs import apply_metrics
from autometa.model.load import AnyLearner, AnyPredictor
from autometa.model.portfolio import Portfolio

Images = NDArray[np.uint8]
Encoded = Mapping[str, torch.Tensor]
"""Rows of the same images [n, ...], by name."""
LOGISTIC = {"strength": 0.01}
RIDGE, RIDGE_TEMPERATURE, MEANS_TEMPERATURE = {"strength": 0.1}, 0.1, 2.0
"""Of backbones without training: ridge regression and class means are averaged, each at a temperature. On development
sets (photos, icons, clip art) the one or the other was ahead by one to four points."""
MOST_KEPT = 10_000
"""Embedded images that a learner may keep."""
TRANSPORT = {"sharpness": 15.0, "step": 0.4}


@dataclass(frozen=True, eq=False)
class Support:
    """Labelled examples: `encoded` rows [s, ...], `labels` int64 [s] in 0..ways-1."""

    encoded: Encoded
    labels: torch.Tensor
    ways: int

    def take(self, rows: torch.Tensor) -> Support:
        """Some of the examples."""
        encoded = {name: each[rows] for name, each in self.encoded.items()}
        return Support(encoded, self.labels[rows], self.ways)


@dataclass(frozen=True)
class KeptSupport:
    """What answers need of a support set: its class means, and weights [d, ways] of ridge regression (None: it does
    not answer)."""

    means: SupportMeans
    ridge: torch.Tensor | None


class Space(Protocol):
    """`answer` with log-probabilities float64 [q, ways]. Unless `transductive`, an answer does not
    depend on the other queries. `features`: one embedding an image, float32 [n, d], for people and for telling what
    belongs to no class; ValueError where there is none."""

    def encode(self, images: Any, ahead: int = 0) -> Encoded:
        """Encode images; so many more will come, which tells whether a faster engine pays."""
        ...

    def answer(self, support: Support, query: Encoded, *, transductive: bool) -> torch.Tensor: ...

    def features(self, encoded: Encoded) -> torch.Tensor: ...

    def members(self) -> list[tuple[str, float]]:
        """Names and weights of what answers."""
        ...


def concatenate(parts: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Rows of several encoded sets, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def name_of(key: Key) -> str:
    """What the rows of a key are called."""
    return f"{key[0]}{' by layer' if key[1] else ''}"


@dataclass
class PortfolioSpace:
    """The features of a portfolio's views after the metrics of its modes, half precision: so they are kept, so they
    are saved."""

    portfolio: Portfolio
    _expects_many: bool = field(default=False, init=False)
    _kept: WeakKeyDictionary[Support, KeptSupport] = field(default_factory=WeakKeyDictionary, init=False)

    @property
    def keys(self) -> list[Key]:
        """The metrics of the modes."""
        return sorted(collect_keys(mode.name for mode in self.portfolio.modes))

    def encode(self, images: Images, ahead: int = 0) -> dict[str, torch.Tensor]:
        """uint8 [n, 3, px, px] → float16 [n, d] of unit length for each metric of the modes."""
        portfolio, places = self.portfolio, list(range(len(images)))
        if len(images) + ahead >= WORTH_BUILDING and not self._expects_many:
            self._expects_many = True  # engines were chosen for a few examples
            for view in portfolio.views:
                portfolio.shelf(view.backbone, view.variant).reconsider(view.px)
        if len(images) + ahead <= FEW_IMAGES:
            moved = portfolio.mover.look(portfolio.store, portfolio.views, self.keys, images)
            joined = side_by_side(moved, self.names, portfolio.views, self.weights)
            return {name_of(key): features.half() for key, features in joined.items()}
        store = FeatureStore(portfolio.shelf, MemoryBudget.of_machine(), ahead=ahead)
        for view in portfolio.views:
            store.embed(view, images, places)
        return {name_of(key): self._join(store, key, places).half() for key in self.keys}

    @property
    def weights(self) -> list[float]:
        """Of the views; their sum is 1."""
        weights = self.portfolio.weights or (1.0,) * len(self.portfolio.views)
        return [weight / sum(weights) for weight in weights]

    def _join(self, store: FeatureStore, key: Key, places: list[int]) -> torch.Tensor:
        """The views side by side, so that inner products are their weighted mean."""
        metrics, views = self.portfolio.metrics, zip(self.portfolio.views, self.weights, strict=True)
        moved = [apply_metrics(metrics, store, view, key, places) * weight**0.5 for view, weight in views]
        return torch.cat(moved, dim=1)

    def answer(self, support: Support, query: Encoded, *, transductive: bool) -> torch.Tensor:
        """Class means of each mode, or optimal transport where the queries look evenly spread over the classes."""
        portfolio = self.portfolio
        mixed = self._together(support, query) if transductive else self._alone(support, query)
        return portfolio.temperature(mixed, len(support.labels) / support.ways)

    def _together(self, support: Support, query: Encoded) -> torch.Tensor:
        """Log-probabilities float64 [q, ways] of queries that may help each other."""
        batches = {
            key: FeatureBatch(
                support.encoded[name_of(key)].float()[None],
                support.labels[None],
                query[name_of(key)].float()[None],
                torch.tensor([support.ways]),
            )
            for key in self.keys
        }
        return self._mix(apply_modes(self.names, batches, refinement=self.portfolio.refinement)[:, 0])

    def _alone(self, support: Support, query: Encoded) -> torch.Tensor:
        """Log-probabilities float64 [q, ways], each query for itself; what the support needs is computed once."""
        if support not in self._kept:
            self._kept[support] = self._keep(support)
        kept = self._kept[support]
        with one_thread() if len(query[name_of(self.keys[0])]) <= FEW_IMAGES else nullcontext():
            features = {key: query[name_of(key)].float() for key in self.keys}
            mixed = self._mix(kept.means.answer(features))
            if kept.ridge is not None:
                ridge = (features[self.keys[0]] @ kept.ridge).double() / RIDGE_TEMPERATURE
                mixed = average([ridge.log_softmax(-1), (mixed / MEANS_TEMPERATURE).log_softmax(-1)], [1, 1])
        return mixed

    def _keep(self, support: Support) -> KeptSupport:
        encoded = {key: support.encoded[name_of(key)].float() for key in self.keys}
        means = SupportMeans.of(
            self.names, encoded, support.labels, sharpness=self.portfolio.refinement.sharpness
        )
        ridge = None
        if self.is_unfitted:
            ridge = ridge_weights(encoded[self.keys[0]], support.labels, support.ways, **RIDGE)
        return KeptSupport(means, ridge)

    def _mix(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores [modes, q, ways] → their weighted mean, float64 [q, ways]."""
        return average(list(scores.double()), [mode.weight for mode in self.portfolio.modes])

    @property
    def names(self) -> list[str]:
        """Of the modes."""
        return [mode.name for mode in self.portfolio.modes]

    @property
    def is_unfitted(self) -> bool:
        """Whether no image was there to learn from."""
        return self.names == list(UNFITTED)

    def features(self, encoded: Encoded) -> torch.Tensor:
        """The features after the first metric, by name."""
        return encoded[name_of(self.keys[0])].float()

    def columns(self) -> dict[str, list[slice]]:
        """Which columns of the rows of each name come from each view."""
        portfolio, blank = self.portfolio, np.zeros((1, 3, FORMAT_PX, FORMAT_PX), np.uint8)
        store = FeatureStore(portfolio.shelf, MemoryBudget.of_machine())
        for view in portfolio.views:
            store.embed(view, blank, [0])
        found = {}
        for key in self.keys:
            widths = [apply_metrics(portfolio.metrics, store, v, key, [0]).shape[1] for v in portfolio.views]
            ends = np.cumsum([0, *widths]).tolist()
            found[name_of(key)] = list(map(slice, ends[:-1], ends[1:]))
        return found

    def members(self) -> list[tuple[str, float]]:
        """Views with their weights."""
        return [(str(v.plain), w) for v, w in zip(self.portfolio.views, self.weights, strict=True)]


@dataclass
class FeatureSpace:
    """Features that somebody else computed. Logistic regression on differences from the mean of the support, whose
    mean length is one."""

    def encode(self, images: NDArray[np.float64], ahead: int = 0) -> dict[str, torch.Tensor]:
        """Features [n, d] → the same, float64."""
        return {"features": torch.from_numpy(np.array(images, dtype=np.float64))}

    def answer(self, support: Support, query: Encoded, *, transductive: bool) -> torch.Tensor:
        """Logistic regression, or optimal transport where the queries look evenly spread over the classes."""
        rows = support.encoded["features"]
        centre = rows.mean(0)
        scale = (rows - centre).square().sum(1).mean().sqrt()
        scale = scale if scale > 0 else torch.ones(())
        batch = FeatureBatch(
            ((rows - centre) / scale)[None],
            support.labels[None],
            ((query["features"] - centre) / scale)[None],
            torch.tensor([support.ways]),
        )
        head, params = ("ot_map", TRANSPORT) if transductive else ("logistic", LOGISTIC)
        return apply_head(head, params, batch, balanced=False)[0].double().log_softmax(-1)

    def features(self, encoded: Encoded) -> torch.Tensor:
        """As they are."""
        return encoded["features"].float()

    def members(self) -> list[tuple[str, float]]:
        """One head."""
        return [("logistic", 1.0)]


@dataclass
class LearnerSpace:
    """Any other learner: it adapts to the images of a support set once, and gets queries one by one, so that they do
    not depend on each other."""

    learner: AnyLearner
    _adapted: WeakKeyDictionary[Support, AnyPredictor] = field(default_factory=WeakKeyDictionary, init=False)

    def encode(self, images: Images, ahead: int = 0) -> dict[str, torch.Tensor]:
        """The images as they are."""
        return {"images": torch.from_numpy(np.array(images))}

    def answer(self, support: Support, query: Encoded, *, transductive: bool) -> torch.Tensor:
        """What the learner answers."""
        queries = query["images"].numpy()
        if support not in self._adapted:
            images = support.encoded["images"].numpy()
            self._adapted[support] = self.learner.fit(images, support.labels.numpy(), support.ways)
        predictor = self._adapted[support]
        if transductive:
            answers = predictor.predict(queries)
        else:
            answers = np.concatenate([predictor.predict(one[None]) for one in queries])
        if (
            isinstance(self.learner, FittedLearner)
            and self.learner.store.embedded(self.learner.views[0]) > MOST_KEPT
        ):
            self.learner.limit_memory(MemoryBudget.of_machine())  # it keeps what it has embedded
        return torch.from_numpy(answers).log()

    def features(self, encoded: Encoded) -> torch.Tensor:
        """The features of the view with the largest weight, of unit length."""
        if not isinstance(self.learner, FittedLearner):
            raise ValueError("this model has no embedding of images: choose one that `autometa fit` has made")
        images = encoded["images"].numpy()
        return unit(self.learner.store.embed(self.learner.views[0], images, hash_images(images)))

    def members(self) -> list[tuple[str, float]]:
        """The learner, or its members."""
        if isinstance(self.learner, FittedLearner):
            return [(f"{m.head} on {m.view}", m.weight) for m in self.learner.members]
        return [(type(self.learner).__name__, 1.0)]
