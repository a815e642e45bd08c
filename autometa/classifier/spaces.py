"""Spaces: what images become once, and how a few labelled ones of them answer for others.

A support set is kept as it was encoded, so that examples are added without training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.budget import MemoryBudget
from autometa.data.images import hash_images
from autometa.heads import FeatureBatch, apply_head
from autometa.heads.features import unit
from autometa.model.fitted_learner import FittedLearner
from autometa.model.load import AnyLearner, AnyPredictor

Images = NDArray[np.uint8]
Encoded = Mapping[str, torch.Tensor]
"""Rows of the same images [n, ...], by name."""
LOGISTIC = {"strength": 0.01}
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
