"""The interface of an engine, and when two engines agree."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from autometa.backbones.network import PixelNetwork

TOLERANCE = 1e-3
"""Largest allowed difference from eager float32, relative to the largest value of the layer of an image."""
LEAST_COSINE = {"half": 0.999, "bfloat16": 0.97}
LEAST_AGREEMENT = {"half": 0.995, "bfloat16": 0.9}
"""By precision: the cosine to eager float32 of each layer of each image, and the share of images whose nearest class
centroid is the same. In bfloat16 sums are rounded too, and classes dealt at random are far closer than real ones:
EfficientNet-Lite 0 to 2 had 0.98 and 0.94 at least. These limits find what is broken; accuracy is measured by
`benchmarks/engines.py`."""
ENGINE_COPIES = 4
"""Of the weights, while an engine is built: in the exported file, in what the library reads of it, in the engine."""
ENGINE_SHARE = 0.5
"""Of the memory that is left, which an engine may take: networks at other sizes and the answers need the rest."""
SAME_COSINE = 1 - 1e-9
"""Of embeddings in float32 of the same image, at least."""
IMAGES_PER_CLASS = 4
"""Of the classes that images are dealt to, to compare nearest centroids."""


class Engine(Protocol):
    """Runs one network at one size: uint8 [n, 3, px, px] on the CPU → float32 [n, d] on the CPU."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings float32 [n, d] of one or more images."""


Build = Callable[[PixelNetwork, int, str], Engine]
"""(network, px, device) → an engine; can raise anything if it does not support the network."""


@dataclass(frozen=True)
class EngineSpec:
    """A row of `ENGINES`.

    `packages` must be importable. `build_s` and `speedup` (over eager) are optimistic guesses to use before anything
    is measured: an engine that would not pay off even so is not tried. `library_bytes`: what its libraries take, 0
    where they are there already. Engines of the same `precision` give features that can replace each other.
    `instead`: the engine to build where a saved learner names this one, and it cannot be built. `least_batch`: where
    memory is for smaller batches than that, it has no use.
    """

    name: str
    build: Build
    build_s: float
    speedup: float
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "float32"
    instead: str | None = None
    library_bytes: int = 0
    least_batch: int = 1

    def room_bytes(self, weight_bytes: int) -> int:
        """Memory that building it for a network of this size takes, at most, on the CPU."""
        return self.library_bytes + ENGINE_COPIES * weight_bytes if self.library_bytes else 0

    @property
    def installed(self) -> bool:
        """Whether its packages are installed."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)


def split_by_room(
    engines: Mapping[str, EngineSpec],
    weight_bytes: int,
    room_bytes: int | None,
    batch_in: Callable[[str], int] = lambda _: sys.maxsize,
) -> tuple[dict[str, EngineSpec], dict[str, str]]:
    """Of some engines for a network of this size, those that fit in so many bytes (None: all do) and serve batches of
    the size that a precision has (`batch_in`), and notes on the others."""
    room = float("inf") if room_bytes is None else ENGINE_SHARE * room_bytes
    notes: dict[str, str] = {}
    for name, spec in sorted(engines.items()):
        if spec.room_bytes(weight_bytes) > room:
            notes[name] = "does not fit in the memory left"
        elif (batch := batch_in(spec.precision)) < spec.least_batch:
            notes[name] = f"is for batches of {spec.least_batch}, memory is for {batch}"
    return {name: spec for name, spec in engines.items() if name not in notes}, notes


def split_into_chunks(images: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The images [n, ...] in chunks of `size`; the last one can be smaller."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def split_layers(output: torch.Tensor, widths: Sequence[int]) -> list[torch.Tensor]:
    """Embeddings [n, sum(widths)] → one tensor [n, width] per layer."""
    return list(torch.split(output, list(widths), dim=1))


def disagreement(reference: torch.Tensor, output: torch.Tensor, widths: Sequence[int]) -> float:
    """Largest difference between two sets of embeddings [n, sum(widths)], relative to the largest value of the
    reference in the same layer of the same image; infinite if shapes differ or a value is not finite."""
    if reference.shape != output.shape or not bool(torch.isfinite(output).all()):
        return float("inf")
    worst = 0.0
    for expected, actual in zip(split_layers(reference, widths), split_layers(output, widths), strict=True):
        scale = expected.abs().amax(1).clamp_min(1e-12)
        worst = max(worst, float(((actual - expected).abs().amax(1) / scale).max()))
    return worst


def reason_to_refuse(
    precision: str, reference: torch.Tensor, output: torch.Tensor, widths: Sequence[int]
) -> str | None:
    """Why an engine of this precision that gives these embeddings [n, sum(widths)] is of no use; None if it is. The
    reference is what eager float32 gives for the same images.

    Half precision cannot give the same numbers. Directions and nearest class centroids are what heads go by.
    """
    if precision == "float32":
        error = disagreement(reference, output, widths)
        return None if error <= TOLERANCE else f"differs from eager by {error:.1e} (at most {TOLERANCE:.0e})"
    if reference.shape != output.shape or not bool(torch.isfinite(output).all()):
        return "gives values that are no numbers"
    cosine, same, classes = 1.0, 1.0, _deal_to_classes(reference)
    for expected, actual in zip(split_layers(reference, widths), split_layers(output, widths), strict=True):
        cosine = min(cosine, float(F.cosine_similarity(expected, actual).min()))
        same = min(same, float((_nearest(expected, classes) == _nearest(actual, classes)).float().mean()))
    if cosine < LEAST_COSINE[precision]:
        return f"has a cosine of {cosine:.5f} to eager for an image (at least {LEAST_COSINE[precision]})"
    if same < LEAST_AGREEMENT[precision]:
        return f"has another nearest class centroid for {100 * (1 - same):.1f} % of the images"
    return None


def _deal_to_classes(embeddings: torch.Tensor) -> torch.Tensor:
    """Classes int64 [n] for images with these embeddings: dealt in turn, the same image always to the same class,
    also where a GPU rounds it differently in another place of a batch."""
    directions = F.normalize(embeddings.double(), dim=1)
    first = (directions @ directions.T > SAME_COSINE).to(torch.uint8).argmax(1)
    different, number = torch.unique(embeddings[first], dim=0, return_inverse=True)
    classes: torch.Tensor = number % max(len(different) // IMAGES_PER_CLASS, 1)
    return classes


def _nearest(features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The nearest class centroid of each image, int64 [n]."""
    directions = F.normalize(features, dim=1)
    centroids = F.one_hot(classes).to(directions.dtype).T @ directions
    return (directions @ F.normalize(centroids, dim=1).T).argmax(1)
