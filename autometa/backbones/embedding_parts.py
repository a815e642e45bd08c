"""Images that are embedded in another process: what it is sent, what it does, and what comes back.

What is sent is made of plain arrays, so that it can lie in memory that processes of a machine share. A process keeps
the networks that it has built: the parts of a view need one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from autometa.backbones.architecture import create_model
from autometa.backbones.build import Backbone
from autometa.backbones.catalogue import BackboneSpec
from autometa.backbones.engines import EAGER
from autometa.core.budget import MemoryBudget, stopwatch
from autometa.core.errors import FAILURES, describe

State = Mapping[str, NDArray[np.generic]]
"""Weights as arrays, by name."""
MOST_HELD = 3
"""Networks that a process keeps; the one that was used longest ago goes first."""
VERSIONS = (
    ("parts of images", "3"), ("torch", torch.__version__.partition("+")[0]), ("timm", timm.__version__)
)  # fmt: skip
"""What must be the same where a part is done: the number changes whenever this module does."""
FOR_GOOD = 10**9
"""Images to come, so that an engine is built for however few come first."""
_HELD: OrderedDict[tuple[Any, ...], Backbone] = OrderedDict()


@dataclass(frozen=True)
class Pass:
    """One pass of a network over images: which weights (`digest`), at which size, and by which `engine`."""

    spec: BackboneSpec
    digest: str
    px: int
    flip: bool
    engine: str
    device: str

    @classmethod
    def of(cls, backbone: Backbone, px: int, *, flip: bool) -> Pass:
        """The pass that `embed_layers` of a backbone is, on the engine that it has for this size."""
        choice = backbone.choice(px)
        engine = choice.name if choice else EAGER
        return cls(backbone.spec, backbone.digest, px, flip, engine, backbone.device)


@dataclass(frozen=True)
class Part:
    """Some images, int64 `rows` [n] of an array, for one pass, `batch` at a time. `held`: the array is the one that
    every process was given; else only these rows of it travel. `versions`: of who asks."""

    number: int
    own: Pass
    rows: NDArray[np.int64]
    batch: int
    held: bool
    versions: tuple[tuple[str, str], ...] = VERSIONS

    def __str__(self) -> str:
        return f"part {self.number} of {self.own.spec.name}@{self.own.px}"


@dataclass(frozen=True)
class Embedded:
    """What came of a part: all layers of its images, float32 [n, d], or None and the reason. `seconds`: of embedding;
    `whole_s`: and of building the network and its engine."""

    number: int
    features: NDArray[np.float32] | None = None
    seconds: float = 0.0
    whole_s: float = 0.0
    reason: str = ""


def state_of(backbone: Backbone) -> State:
    """The weights of a network, as they are."""
    return {name: tensor.cpu().numpy() for name, tensor in backbone.model.state_dict().items()}


def embed_part(part: Part, state: State, images: NDArray[np.uint8], threads: int | None = None) -> Embedded:
    """Embed `images` uint8 [n, 3, h, w], or the rows of the part where they are those that all processes have, with
    the network of these weights, in so many threads. A failure is a result with its reason."""
    if differs := compare_versions(part.versions):
        return Embedded(part.number, reason=differs)
    if threads is not None:
        start_up(threads)
    whole = stopwatch()
    try:
        backbone = _network(part.own, state)
        seen = images[part.rows] if part.held else images
        if (engine := _engine(backbone, part.own, seen)) != part.own.engine:
            return Embedded(
                part.number, reason=f"engine {part.own.engine} cannot be used there, but {engine}"
            )
        elapsed = stopwatch()
        batches = [
            backbone.embed_layers(seen[start : start + part.batch], part.own.px, flip=part.own.flip).numpy()
            for start in range(0, len(seen), part.batch)
        ]
        seconds = elapsed()
        if (engine := Pass.of(backbone, part.own.px, flip=part.own.flip).engine) != part.own.engine:
            return Embedded(part.number, reason=f"engine {part.own.engine} failed in use there")
        return Embedded(part.number, np.concatenate(batches), seconds, whole())
    except FAILURES as error:
        return Embedded(part.number, reason=describe(error))


def compare_versions(asked: tuple[tuple[str, str], ...]) -> str:
    """What is of another version in this process than where a unit of work comes from; nothing where all is equal."""
    for (name, there), here in zip(VERSIONS, asked, strict=True):
        if (name, there) != here:
            return f"{name} {there} is there, {here[1]} here"
    return ""


def start_up(threads: int) -> None:
    """Compute in so many threads in this process, whatever embeds."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "METADL_CORES"), str(threads))  # engines go by them
    torch.set_num_threads(threads)


def _network(own: Pass, state: State) -> Backbone:
    """The network of a pass, built where this process has none of its architecture with these weights and this
    engine."""
    key = own.digest, own.spec, own.device, own.engine
    if key not in _HELD:
        while len(_HELD) >= MOST_HELD:
            _HELD.popitem(last=False)
        model = create_model(own.spec)
        weights = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        model.load_state_dict(weights, strict=True)
        _HELD[key] = Backbone(own.spec, model, own.device)
    _HELD.move_to_end(key)
    return _HELD[key]


def _engine(backbone: Backbone, own: Pass, images: NDArray[np.uint8]) -> str:
    """Make the engine of a pass ready; the name of the one that is."""
    if backbone.choice(own.px) is None:
        backbone.prefer(own.engine, own.px)
        room_bytes = MemoryBudget.of_machine().total_bytes
        backbone.prepare(images, own.px, n_images=FOR_GOOD, room_bytes=room_bytes)
    return Pass.of(backbone, own.px, flip=own.flip).engine
