"""The interface of an engine, and when two engines agree."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from autometa.backbones.network import PixelNetwork

TOLERANCE = 1e-3
"""Largest allowed difference from eager float32, relative to the largest value of the layer of an image."""
OUT_OF_MEMORY_TEXT = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


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
    is measured: an engine that would not pay off even so is not tried. Engines of the same `precision` give features
    that can replace each other.
    """

    name: str
    build: Build
    build_s: float
    speedup: float
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "float32"

    @property
    def installed(self) -> bool:
        """Whether its packages are installed."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, Python or a library means that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXT)
