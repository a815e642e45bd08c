"""Chooses how the images of a dataset are prepared: a look at some of each class and suffix, mostly at headers.

Deep grey images are scaled by the range of their values, which no header tells: thermal cameras, microscopes and
numbers from 0 to 1 all have another. Transparent images get the ground on which every drawing can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingestion.cgroups import count_cores
from ingestion.datasets import Dataset
from ingestion.formats import UNUSABLE, quiet_decoders, reason_of
from ingestion.image_size import FAR_FROM_SQUARE, elongation, sample_sizes
from ingestion.pixels import DEEP_VALUES, Look, Values, decode_image, is_special, look_at
from ingestion.preparation import WHITE, Preparation, Shape
from ingestion.sources import Source

T = TypeVar("T")

FILES = 256
"""Headers that are looked at, but at least one of each class and suffix, of `MOST_GROUPS` of these."""
LOOKS = 64
"""Deep or transparent images whose pixels are looked at."""
MOST_GROUPS = 1024
OUTLIERS = 0.001
"""Share of the values that may lie below, and above, the range of greys."""
LEAST_CONTRAST = 24
"""Mean distance of a drawing from its ground, of 255, where it can be seen well."""
GREY = 128
TRIAL_PX = 32
"""At which images are decoded to find out whether they can be."""


def choose_preparation(
    datasets: Sequence[Dataset], px: int, shape: Shape = "squeeze"
) -> tuple[Preparation, tuple[str, ...]]:
    """One preparation for the images of all these datasets, with this shape, and a line for each choice that is not
    the usual one."""
    files = _some_of_each(datasets)
    with quiet_decoders(), ThreadPoolExecutor(count_cores()) as pool:
        special = [file for file, is_so in zip(files, pool.map(is_special, files), strict=True) if is_so]
        looks = list(pool.map(look_at, _evenly(special, LOOKS)))
    low, high, about_greys = _grey_range(looks)
    ground, about_ground = _ground([look.drawn for look in looks if look.drawn is not None])
    return Preparation(px, low, high, ground, shape), (*about_greys, *about_ground)


def find_broken(dataset: Dataset) -> dict[int, str]:
    """The images of a dataset that cannot be read, by their rows, each with the reason."""
    preparation, _ = choose_preparation([dataset], TRIAL_PX)
    with quiet_decoders(), ThreadPoolExecutor(count_cores()) as pool:
        reasons = list(pool.map(partial(_why_broken, preparation=preparation), dataset.files))
    return {row: reason for row, reason in enumerate(reasons) if reason}


def _why_broken(file: Path, preparation: Preparation) -> str:
    try:
        decode_image(file.read_bytes(), preparation)
    except UNUSABLE as error:
        return reason_of(error, file)
    return ""


def choose_preparations(source: Source, px: int, shape: Shape | Literal["auto"] = "squeeze") -> Source:
    """The source with a preparation for each of its datasets, and notes on those that are not the usual one. Those of
    a split share one; a MetaDL root has the usual one, as the format asks, unless another shape is told. The shape
    `auto` is to squeeze, with a note where images are far from square."""
    told: Shape = "squeeze" if shape == "auto" else shape
    if source.is_metadl_root:
        usual = Preparation(px, shape=told)
        return replace(source, preparations=dict.fromkeys(source.datasets, usual))
    together = [list(source.datasets)] if source.roles else [[name] for name in source.datasets]
    chosen: dict[str, Preparation] = {}
    lines: list[str] = []
    for names in together:
        preparation, about = choose_preparation([source.datasets[name] for name in names], px, told)
        chosen |= dict.fromkeys(names, preparation)
        lines += [line if len(together) == 1 else f"{names[0]}: {line}" for line in about]
    if shape == "auto":
        lines += _about_shape(list(source.datasets.values()))
    return replace(source, preparations=chosen).noting(lines)


def measure_elongation(datasets: Sequence[Dataset]) -> float:
    """Longer side over the shorter one of the median image of all these datasets, of which a few are looked at."""
    return elongation(sample_sizes([file for dataset in datasets for file in dataset.files]))


def _about_shape(datasets: Sequence[Dataset]) -> list[str]:
    """A line where another shape than the usual one may be better."""
    ratio = measure_elongation(datasets)
    if ratio < FAR_FROM_SQUARE:
        return []
    return [
        f"images are far from square (most {ratio:.1f} to 1) and are squeezed; --image-shape pad or crop may suit "
        "them better"
    ]


def _some_of_each(datasets: Sequence[Dataset]) -> list[Path]:
    groups: dict[tuple[str, int, str], list[Path]] = {}
    for dataset in datasets:
        for file, label in zip(dataset.files, dataset.labels.tolist(), strict=True):
            groups.setdefault((dataset.name, label, file.suffix.lower()), []).append(file)
    some = _evenly(list(groups.values()), MOST_GROUPS)
    share = max(FILES // max(len(some), 1), 1)
    return [file for group in some for file in _evenly(group, share)]


def _evenly(items: Sequence[T], most: int) -> list[T]:
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).astype(int))] if items else []


def _grey_range(looks: Sequence[Look]) -> tuple[float | None, float | None, tuple[str, ...]]:
    """The values that become black and white; None where they are those of 16 bits, or no image is deep."""
    deep = [look for look in looks if look.greys is not None]
    values = [look.greys for look in deep if look.greys is not None]
    if not values:
        return None, None, ()
    pooled = np.concatenate(values)
    low, high = _bounds(pooled)
    sixteen = all(look.whole_numbers for look in deep) and pooled.min() >= 0 and pooled.max() < DEEP_VALUES
    if sixteen and (high - low >= DEEP_VALUES / 2 or low == high):
        return None, None, ()
    if low == high:  # all images that were looked at have one colour
        low, high = min(low, 0.0), max(high, low + 1.0)
    line = f"values {low:.4g} to {high:.4g} become black to white"
    return low, high, (f"deep grey images (16 or 32 bits, or floating point): {line}",)


def _bounds(pooled: Values) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(pooled, [OUTLIERS, 1 - OUTLIERS]))
    return (low, high) if low < high else (float(pooled.min()), float(pooled.max()))


def _ground(drawings: Sequence[NDArray[np.float64]]) -> tuple[int, tuple[str, ...]]:
    """White, unless a drawing would vanish on it; else the ground on which the faintest one is seen best."""
    faintest = {g: min((np.abs(d - g).mean() for d in drawings), default=WHITE) for g in (WHITE, 0, GREY)}
    if faintest[WHITE] >= LEAST_CONTRAST:
        return WHITE, ()
    best = max(faintest, key=lambda ground: float(faintest[ground]))
    if best == WHITE:
        return WHITE, ()
    name = {0: "black", GREY: "grey"}[best]
    return best, (f"transparent parts become {name}: on white, some of the drawings could not be seen",)
