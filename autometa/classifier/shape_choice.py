"""How images that are far from square become so: as held-out classes say.

A few images of the classes are prepared in each way and embedded with one pretrained backbone. Half of the classes
tell how to weigh features, tasks of the other half are answered, and the other way round. The tasks are the same for
each way, so that differences between ways are exact to a point or two. The whole image is squeezed, as the format
has it, unless another way is better by more than its noise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View, expand_presets
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.classifier.pictures import choose_preparation, look_up_sizes, read_image
from autometa.classifier.portfolio_space import PortfolioSpace
from autometa.classifier.sources import Source, find_backbones
from autometa.core.budget import UNLIMITED, MemoryBudget, TimeBudget, stopwatch
from autometa.core.errors import WeightsError
from autometa.core.machine import Machine
from autometa.heads import find_metric
from autometa.heads.class_statistics import ClassStatistics
from autometa.heads.features import unit
from ingestion import Preparation
from ingestion.datasets import Dataset
from ingestion.image_size import FAR_FROM_SQUARE, elongation
from ingestion.preparation import SHAPES, Shape

MOST_IMAGES, MOST_EACH, LEAST_EACH = 300, 12, 3
"""Images that are looked at: in all, and of each class."""
LEAST_CLASSES = 8
"""With fewer, what a way gains is noise."""
TASKS, MOST_WAYS, MOST_SHOTS = 60, 10, 5
"""Of each half of the classes."""
METRIC = "root_white"
ERRORS = 2.0
"""Standard errors over classes by which another way must be better."""
LARGEST_PX = 224
"""Size at which the images are embedded, at most."""

Rows = NDArray[np.int64]
Images = NDArray[np.uint8]
Embed = Callable[[Images], torch.Tensor]
"""uint8 [n, 3, px, px] → float32 [n, d]."""


def choose_shape(
    images: Sequence[Any],
    labels: NDArray[Any],
    preparation: Preparation,
    embed: Embed,
    budget: TimeBudget = UNLIMITED,
) -> tuple[Preparation, list[str]]:
    """The preparation with the shape that suits these images (each one of `pictures.as_sequence`), and a line on the
    choice where there was one. Without time or images enough, the shape stays as it is."""
    ratio = elongation(look_up_sizes(images))
    if ratio < FAR_FROM_SQUARE:
        return preparation, []
    told = f"images are far from square (most {ratio:.1f} to 1)"
    too_few = [f"{told}; too few of them to tell how they are best made square: squeezed"]
    rows = sample_rows(_number(labels), np.random.default_rng(0))
    if not len(rows):
        return preparation, too_few
    features: dict[Shape, torch.Tensor] = {}
    for shape in SHAPES:
        elapsed = stopwatch()
        pixels, readable = _read([images[row] for row in rows], replace(preparation, shape=shape))
        rows = rows[readable]
        if len(np.unique(labels[rows])) < LEAST_CLASSES:
            return preparation, too_few
        features[shape] = embed(np.stack(pixels))
        if shape == SHAPES[0] and not budget.fits((len(SHAPES) - 1) * elapsed()):
            return preparation, [f"{told}; no time to try how they are best made square: squeezed"]
    classes = _number(labels[rows])
    gains = compare(features, classes, np.random.default_rng(0))
    best = max(gains, key=lambda shape: gains[shape][0])
    found = ", ".join(
        f"{shape} {100 * gain:+.1f} ± {100 * error:.1f}" for shape, (gain, error) in gains.items()
    )
    chosen = best if gains[best][0] > ERRORS * gains[best][1] else SHAPES[0]
    line = f"{told}; against squeezing, on held-out classes: {found} points: {chosen} it is"
    return replace(preparation, shape=chosen), [line]


def choose_shape_of_datasets(
    datasets: Sequence[Dataset], preparation: Preparation, preset: str, budget: TimeBudget
) -> tuple[Preparation, list[str]]:
    """As `choose_shape`, for the images of datasets, with the first backbone of a preset (or `auto`, or names)."""
    ends = np.cumsum([0, *(len(each.class_names) for each in datasets)])
    labels = np.concatenate([each.labels + end for each, end in zip(datasets, ends, strict=False)])
    files = [file for each in datasets for file in each.files]
    shelf = BackboneShelf(Machine.detect().device)

    def embed(images: Images) -> torch.Tensor:
        return embed_with(shelf, _first_usable(preset, shelf), images)

    return choose_shape(files, labels, preparation, embed, budget)


def _first_usable(preset: str, shelf: BackboneShelf) -> str:
    """The first backbone of a preset (or `auto`, or names) that can be built. WeightsError where none can."""
    for name in () if preset == "auto" else expand_presets(each.strip() for each in preset.split(",")):
        with contextlib.suppress(WeightsError):
            shelf(name)
            return name
    return find_backbones(preset, shelf)[0]


def suit_examples(
    source: Source,
    images: Sequence[Any],
    labels: NDArray[Any],
    size: int | str,
    shape: Shape | Literal["auto"],
) -> Preparation:
    """How examples for the networks of a source are prepared, and what is asked about later: as the source was
    trained, else as suits these images; a size or a shape that is told comes first."""
    chosen = source.preparation or choose_preparation(images)
    if size != "auto":
        chosen = replace(chosen, px=int(size))
    if shape != "auto":
        return replace(chosen, shape=shape)
    if source.preparation is not None or not isinstance(source.space, PortfolioSpace):
        return chosen
    portfolio = source.space.portfolio

    def embed(pixels: Images) -> torch.Tensor:
        return embed_with(portfolio.shelf, portfolio.views[0].backbone, pixels)

    return choose_shape(images, labels, chosen, embed)[0]


def check_options(size: int | str, shape: str) -> None:
    """ValueError where a size or a shape that is told cannot be used."""
    if size != "auto" and not 16 <= int(size) <= 1024:
        raise ValueError(f"image_size = {size!r}: `auto`, or 16 to 1024 pixels")
    if shape not in ("auto", *SHAPES):
        raise ValueError(f"image_shape = {shape!r}: one of auto, {', '.join(SHAPES)}")


def embed_with(shelf: BackboneShelf, backbone: str, images: Images) -> torch.Tensor:
    """Embeddings float32 [n, d] of images uint8 [n, 3, px, px], at their own size where that is not too large."""
    view = View(backbone, min(images.shape[-1], LARGEST_PX))
    return FeatureStore(shelf, MemoryBudget.of_machine()).embed(view, images, list(range(len(images))))


def _number(labels: NDArray[Any]) -> Rows:
    """Labels of any kind as numbers from 0 on."""
    numbers: Rows = np.unique(labels, return_inverse=True)[1]
    return numbers


def sample_rows(classes: Rows, rng: np.random.Generator) -> Rows:
    """Rows of a few images of each class, given the class of each; none where classes with several are too few."""
    several = np.flatnonzero(np.bincount(classes) >= LEAST_EACH)
    if len(several) < LEAST_CLASSES:
        return np.empty(0, np.int64)
    chosen = rng.permutation(several)[: MOST_IMAGES // LEAST_EACH]
    each = min(MOST_EACH, MOST_IMAGES // len(chosen))
    return np.concatenate([rng.permutation(np.flatnonzero(classes == one))[:each] for one in chosen])


def compare(
    features: Mapping[Shape, torch.Tensor], classes: Rows, rng: np.random.Generator
) -> dict[Shape, tuple[float, float]]:
    """By how much the accuracy on held-out classes is better with each shape than with the first, and the standard
    error over classes. `features`: float32 [n, d] of the same images; `classes` [n]: int64, from 0 on."""
    half = rng.permutation(classes.max() + 1) % 2
    moved = {shape: _move(each, classes, half) for shape, each in features.items()}
    answered, right = np.zeros(len(half)), {shape: np.zeros(len(half)) for shape in features}
    for part in (0, 1):
        for _ in range(TASKS):
            support, query = _draw_task(classes, np.flatnonzero(half == part), rng)
            np.add.at(answered, classes[query], 1)
            for shape, each in moved.items():
                correct = _answer(each, classes, support, query) == classes[query]
                np.add.at(right[shape], classes[query], correct)
    asked = answered > 0
    first, *others = features
    found = {}
    for shape in others:
        gains = (right[shape] - right[first])[asked] / answered[asked]
        found[shape] = float(gains.mean()), float(gains.std(ddof=1) / len(gains) ** 0.5)
    return found


def _move(features: torch.Tensor, classes: Rows, half: Rows) -> torch.Tensor:
    """The images of each half of the classes after a metric that was fitted to the other half."""
    statistics, part_of_image = ClassStatistics(), half[classes]
    numbers, moved = torch.from_numpy(classes), torch.empty_like(features)
    for part in (0, 1):
        rows = torch.from_numpy(np.flatnonzero(part_of_image == part))
        statistics.add(features[rows], numbers[rows], part, [find_metric(METRIC).power])
    for part in (0, 1):
        rows = torch.from_numpy(np.flatnonzero(part_of_image == part))
        moved[rows] = statistics.move(features[rows], METRIC, without=part)
    return moved


def _draw_task(classes: Rows, among: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of a support set and of queries, of some classes."""
    shots, support, query = int(rng.integers(1, MOST_SHOTS + 1)), [], []
    for one in rng.permutation(among)[:MOST_WAYS]:
        rows = rng.permutation(np.flatnonzero(classes == one))
        if len(rows) < 2:
            continue
        known = min(shots, len(rows) - 1)
        support.append(rows[:known])
        query.append(rows[known:])
    return np.concatenate(support), np.concatenate(query)


def _answer(features: torch.Tensor, classes: Rows, support: Rows, query: Rows) -> Rows:
    """The class of each query whose mean of the support is the nearest."""
    names, numbers = np.unique(classes[support], return_inverse=True)
    sums = torch.zeros(len(names), features.shape[1])
    sums.index_add_(0, torch.from_numpy(numbers), features[torch.from_numpy(support)])
    scores = features[torch.from_numpy(query)] @ unit(sums).T
    answered: Rows = names[scores.argmax(1).numpy()]
    return answered


def _read(images: Sequence[Any], preparation: Preparation) -> tuple[list[Images], list[int]]:
    """The images that can be read, each uint8 [3, px, px], and their places."""
    pixels, places = [], []
    for place, image in enumerate(images):
        with contextlib.suppress(ValueError):  # what cannot be read is told where it is needed
            pixels.append(read_image(image, preparation))
            places.append(place)
    return pixels, places
