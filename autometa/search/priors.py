"""What won on other datasets: a table that the search asks first, about the datasets that are most like its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from autometa.backbones import View
from autometa.core.errors import ArtifactError
from autometa.data.images import ImagePool
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import HEADS, Params

TABLE = Path(__file__).with_name("priors.json")
FORMAT: Literal["autometa-priors-1"] = "autometa-priors-1"
NEAREST, MOST_PROPOSALS = 3, 6
"""Datasets that are asked, and candidates that they propose in all."""
LOOKED_AT = 200
"""Images from which colours and edges are measured."""
EDGE, TWO_TONE = 0.1, 0.1
"""Steps of grey between neighbours that make an edge, and the share of an image's range of greys that counts as its
darkest or its lightest tone."""


class PriorCandidate(BaseModel):
    """A candidate that did well: a head with its parameters on layers of a backbone at `px`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: str
    params: dict[str, Any]
    backbone: str
    px: int
    layers: tuple[str, ...]
    accuracy: float


class DatasetPrior(BaseModel):
    """A dataset: its features (see `describe_dataset`) and what won there, best first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    features: dict[str, float]
    won: tuple[PriorCandidate, ...]


class Priors(BaseModel):
    """The table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-priors-1"] = FORMAT
    rows: tuple[DatasetPrior, ...] = ()

    def without(self, names: Collection[str]) -> Priors:
        """The table less the rows of these datasets."""
        return self.model_copy(update={"rows": tuple(row for row in self.rows if row.dataset not in names)})

    def nearest(self, features: Mapping[str, float], n: int = NEAREST) -> list[DatasetPrior]:
        """The `n` rows most like a dataset with these features, or only some of them, the nearest first: Euclidean
        distance after every feature was divided by its standard deviation over the table."""
        if not self.rows:
            return []
        names = sorted(features)
        table = np.array([[row.features[name] for name in names] for row in self.rows])
        scale = np.where(table.std(0) > 0, table.std(0), 1.0)
        distances = np.linalg.norm((table - [features[name] for name in names]) / scale, axis=1)
        return [self.rows[place] for place in np.argsort(distances, kind="stable")[:n]]


def load_priors(file: Path = TABLE) -> Priors:
    """The table in a file. ArtifactError where it is missing, damaged or of another version."""
    try:
        return Priors.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"{file}: no table of priors ({error.strerror})") from error
    except (UnicodeDecodeError, ValidationError) as error:
        raise ArtifactError(f"{file}: damaged, or of another version than {FORMAT} ({error})") from error


def proposed(
    views: Sequence[View],
    features: Mapping[str, float],
    without: Collection[str],
    report: Callable[[str], None],
) -> list[Params]:
    """What the search of `views` should ask for first on a dataset with these features (see `proposals`). Rows of the
    datasets `without` are left out. Without a table there is nothing, and the reason is reported."""
    try:
        nearest = load_priors().without(without).nearest(features)
    except ArtifactError as error:
        report(f"no priors: {error}")
        return []
    asked = proposals(nearest, views[0], views)
    report(
        f"priors: {len(asked)} candidates that won on {', '.join(row.dataset for row in nearest) or 'nothing'}"
    )
    return asked


def proposals(
    rows: Sequence[DatasetPrior], first: View, views: Collection[View], n: int = MOST_PROPOSALS
) -> list[Params]:
    """Up to `n` distinct candidates that won on `rows`, as search parameters: the best of every row, then the
    second ones and so on, on the `first` view, or that of `views` which is the same pass with the layers that won."""
    deepest = max((len(row.won) for row in rows), default=0)
    in_turn = [row.won[place] for place in range(deepest) for row in rows if place < len(row.won)]
    found: list[Params] = []
    for won in in_turn:
        if won.head not in HEADS:  # of another version's table of heads
            continue
        view = View(first.backbone, first.px, won.layers)
        search_params = HEADS[won.head].search_params(won.head, won.params)
        proposal = {
            "view": str(view if view in views else first),
            "flip": False,
            "head": won.head,
            **search_params,
        }
        if proposal not in found:
            found.append(proposal)
    return found[:n]


def describe_dataset(
    pool: ImagePool, small_set: ValidationSet, view: View, embedded: torch.Tensor | None = None
) -> dict[str, float]:
    """What tells datasets apart: numbers of classes and of images per class (logarithms), colourfulness, edges, how
    much of an image has one of two tones, and how accurate the nearest centroid is on the episodes of `small_set`,
    given the embedding float32 [n, d] of its images in `view` (without it, that is left out)."""
    seen = small_set.images[
        np.linspace(0, len(small_set.images) - 1, min(LOOKED_AT, len(small_set.images))).astype(int)
    ]
    datasets = max(len(pool.datasets), 1)
    found = {
        "log_classes": math.log(pool.classes / datasets),
        "log_images_per_class": math.log(float(np.median(np.bincount(pool.labels)))),
        "colourfulness": colourfulness(seen),
        "edges": edges(seen),
        "two_tone": two_tone(seen),
    }
    if embedded is not None:
        params = {"transform": "root_l2", "metric": "cosine"}
        found["centroid_accuracy"] = small_set.answer(view, embedded, "centroid", params).mean
    return found


def colourfulness(images: NDArray[np.uint8]) -> float:
    """Mean colourfulness of images uint8 [n, 3, h, w], 0 of grey ones and some 0.4 of gaudy ones (Hasler and
    Süsstrunk 2003, on values from 0 to 1)."""
    red, green, blue = images.astype(np.float32).transpose(1, 0, 2, 3) / 255
    opposed = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, len(images), -1)
    spread, centre = np.linalg.norm(opposed.std(2), axis=0), np.linalg.norm(opposed.mean(2), axis=0)
    return float((spread + 0.3 * centre).mean())


def edges(images: NDArray[np.uint8]) -> float:
    """Share of pixels of images uint8 [n, 3, h, w] whose grey differs from that of the next one to the right or
    below."""
    grey = _greys(images)
    across, down = np.abs(np.diff(grey, axis=2))[:, 1:], np.abs(np.diff(grey, axis=1))[:, :, 1:]
    return float((np.maximum(across, down) > EDGE).mean())


def two_tone(images: NDArray[np.uint8]) -> float:
    """Share of pixels of images uint8 [n, 3, h, w] with nearly the darkest or nearly the lightest grey of their
    image: 1 of glyphs, little of photographs."""
    grey = _greys(images).reshape(len(images), -1)
    low, high = grey.min(1, keepdims=True), grey.max(1, keepdims=True)
    place = (grey - low) / np.maximum(high - low, 1e-6)
    return float(((place < TWO_TONE) | (place > 1 - TWO_TONE)).mean())


def _greys(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values from 0 to 1, float32 [n, h, w]."""
    grey: NDArray[np.float32] = images.mean(1, dtype=np.float32) / 255
    return grey
