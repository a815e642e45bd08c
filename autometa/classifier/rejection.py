"""None of these: telling images of no known class by what held-out classes of the support look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from autometa.heads.features import unit

LEAST = 2
"""Similarities of each kind that are needed to tell them apart."""
MOST_IMAGES = 400
"""Examples that are held out, at most: enough for two numbers."""


@dataclass(frozen=True)
class Rejection:
    """Probability that an image belongs to one of the classes: a logistic function of its similarity to the nearest
    class mean, in units of the spread that was seen."""

    slope: float
    level: float
    mean: float
    spread: float

    def known(self, similarity: torch.Tensor) -> NDArray[np.float64]:
        """Similarities [q] → probabilities float64 [q] of belonging to a known class."""
        scaled = (similarity.double() - self.mean) / self.spread
        known: NDArray[np.float64] = torch.sigmoid(self.slope * scaled + self.level).numpy()
        return known


def check_threshold(reject_below: Any) -> None:
    """ValueError for what is neither None nor a probability."""
    if reject_below is not None and not 0 < reject_below < 1:
        raise ValueError(f"reject_below = {reject_below!r}: a probability between 0 and 1, or None")


def replace_rejected(labels: NDArray[Any], rejected: NDArray[np.bool_], instead: Any) -> NDArray[Any]:
    """Labels [n] with `instead` where they are rejected, of a type that holds both."""
    if rejected.any() and np.asarray(instead).dtype.kind != labels.dtype.kind:
        labels = labels.astype(object)
    elif labels.dtype.kind == "U":
        labels = labels.astype(np.result_type(labels, np.asarray(instead)))
    labels[rejected] = instead
    return labels


def nearest_similarity(
    support: torch.Tensor, labels: torch.Tensor, ways: int, query: torch.Tensor
) -> torch.Tensor:
    """Cosine [q] between each query [q, d] and the nearest of the class means of the support [s, d]."""
    one_hot = torch.nn.functional.one_hot(labels, ways).to(support.dtype)
    means = unit((one_hot.T @ unit(support)) / one_hot.sum(0)[:, None].clamp(min=1))
    return (unit(query) @ means.T).amax(1)


def calibrate(features: torch.Tensor, labels: torch.Tensor, ways: int) -> Rejection:
    """From examples [s, d] with labels [s]: each class is held out in turn and is unknown then; images of classes
    with several are held out one by one and are known. ValueError where these are too few."""
    known, unknown = [], []
    places = np.unique(np.linspace(0, len(labels) - 1, MOST_IMAGES).astype(int))
    sizes = labels.bincount(minlength=ways)
    for place in places.tolist():
        label = int(labels[place])
        others = labels != label
        if ways > 1:
            unknown.append(_similarity_without(features, labels, others, place))
        if sizes[label] > 1:
            rest = torch.ones(len(labels), dtype=torch.bool)
            rest[place] = False
            known.append(_similarity_without(features, labels, rest, place))
    if min(len(known), len(unknown)) < LEAST:
        raise ValueError(
            "reject_below: the threshold is calibrated on classes that are held out, which needs two classes and "
            "two images of some; give more examples, or reject_below=None"
        )
    return _fit(np.array(known), np.array(unknown))


def _similarity_without(
    features: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor, place: int
) -> float:
    present, renumbered = torch.unique(labels[kept], return_inverse=True)
    query = features[place : place + 1]
    return float(nearest_similarity(features[kept], renumbered, len(present), query))


def _fit(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> Rejection:
    """Logistic regression on one number, both kinds equally likely."""
    both = np.concatenate([known, unknown])
    mean, spread = float(both.mean()), float(both.std()) or 1.0
    target = np.concatenate([np.ones(len(known)), np.zeros(len(unknown))])
    fitted = LogisticRegression(class_weight="balanced").fit(((both - mean) / spread)[:, None], target)
    return Rejection(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]), mean, spread)
