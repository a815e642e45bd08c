"""What an engine is, and when two of them agree."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from autometa.backbones.network import PixelNetwork

TOLERANCE = 1e-3
"""Largest difference to eager float32, relative to the largest value of the same layer of the same image."""
OUT_OF_MEMORY_TEXT = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


class Engine(Protocol):
    """Runs one network at one size: uint8 [n, 3, px, px] on the CPU → float32 [n, d] on the CPU."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings of any number of images, at least one."""


Build = Callable[[PixelNetwork, int, str], Engine]
"""(network, px, device) → an engine; may raise anything where the network is not to its liking."""


@dataclass(frozen=True)
class EngineSpec:
    """A row of the table. `packages` must be importable; `build_s` and `speedup` (over eager) are what to
    expect at best before anything is measured: an engine that could not pay even so is not tried.
    Features of engines of one `precision` may stand for each other."""

    name: str
    build: Build
    build_s: float
    speedup: float
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "float32"

    @property
    def installed(self) -> bool:
        """Whether its packages are there."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)


def split_into_chunks(images: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The images in parts of `size`, the last one maybe shorter."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def split_layers(output: torch.Tensor, widths: Sequence[int]) -> list[torch.Tensor]:
    """Embeddings [n, sum(widths)] → [n, width] each."""
    return list(torch.split(output, list(widths), dim=1))


def disagreement(reference: torch.Tensor, output: torch.Tensor, widths: Sequence[int]) -> float:
    """Largest difference of two sets of embeddings [n, sum(widths)], relative to the largest value of the
    reference in the same layer of the same image; infinite where shapes differ or a value is not finite."""
    if reference.shape != output.shape or not bool(torch.isfinite(output).all()):
        return float("inf")
    worst = 0.0
    for wanted, got in zip(split_layers(reference, widths), split_layers(output, widths), strict=True):
        scale = wanted.abs().amax(1).clamp_min(1e-12)
        worst = max(worst, float(((got - wanted).abs().amax(1) / scale).max()))
    return worst


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up, in the words of torch, Python or a library."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXT)
