"""Which weights `--download allow` fetches before a run: those that it has room for, by prediction."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autometa.backbones import (
    CATALOGUE,
    EAGER,
    Backbone,
    BackboneSpec,
    expand_presets,
    find_spec,
    work_of,
)
from autometa.backbones.architecture import create_model
from autometa.backbones.catalogue import is_packaged
from autometa.backbones.engines import ENGINES
from autometa.backbones.fetch import fetch_all
from autometa.backbones.weights import has_other_weights
from autometa.core.budget import stopwatch
from autometa.core.machine import Machine, time_settled
from autometa.core.options import WeightsOptions
from autometa.search.candidates import Room, choose_backbones

PROBE, PROBE_PX, PROBE_IMAGES = "tf_efficientnet_lite0", 128, 8
MOST_BACKBONES = 8
"""Chosen for a run where none are named: each further one gains less."""
USUAL_ENGINE = "openvino"
"""What embeds on a CPU, where it is installed."""
USUAL_IMAGES = 2000
"""Of a dataset, where they cannot be counted."""


@dataclass(frozen=True)
class Budget:
    """Of a run: its dataset, seconds, and bytes of memory."""

    dataset: Path
    seconds: float
    memory_bytes: float


def download(options: WeightsOptions, budget: Budget, show: Callable[[str], None]) -> float:
    """Fetch what is missing of the backbones that are named, or else of those that the run has room for; `show` gets
    a line for each. Of a preset, what does not fit is not fetched, as it would not be used. Seconds that it took."""
    elapsed = stopwatch()
    if options.backbones:
        wanted = [find_spec(name.strip()) for name in options.backbones.split(",")]
    else:
        rows = [spec for spec in CATALOGUE.values() if spec.by_default]
        preset = [find_spec(name) for name in expand_presets([options.preset])] if options.preset else rows
        wanted = _choose(preset, options, budget)
        if options.preset:
            left_out = [spec.name for spec in preset if spec not in wanted]
            show(f"not fetched, as there is no room for it: {', '.join(left_out)}") if left_out else None
    missing = [spec for spec in wanted if not is_packaged(spec)]
    fetch_all(missing, show, limit_bytes=options.download_limit)
    return elapsed()


def _choose(specs: Sequence[BackboneSpec], options: WeightsOptions, budget: Budget) -> list[BackboneSpec]:
    """Those that there is room for, by expected gain per second."""
    slowness = measure_slowness()
    engine = USUAL_ENGINE if ENGINES[USUAL_ENGINE].installed and Machine.detect().device == "cpu" else EAGER
    room = Room(
        budget.seconds, budget.memory_bytes, count_images(budget.dataset), float(options.download_limit)
    )

    def image_s(spec: BackboneSpec) -> float | None:
        work = work_of(spec, room.px, engine)
        return None if work is None else slowness * work

    return choose_backbones(specs, room, image_s, _is_here)[:MOST_BACKBONES]


def _is_here(spec: BackboneSpec) -> bool:
    return is_packaged(spec) or has_other_weights(spec)


def measure_slowness() -> float:
    """How long the work of a small network with random weights takes on this machine, in relation to the one where
    the constants of the costs were measured."""
    spec = find_spec(PROBE)
    device = Machine.detect().device
    network = Backbone(spec, create_model(spec), device)
    images = torch.zeros(PROBE_IMAGES, 3, PROBE_PX, PROBE_PX, dtype=torch.uint8)
    network.embed(images, PROBE_PX)
    seconds = min(time_settled(lambda: network.embed(images, PROBE_PX), device) for _ in range(3))
    work = work_of(spec, PROBE_PX)
    assert work is not None, f"{PROBE} is counted"
    return seconds / PROBE_IMAGES / work


def count_images(dataset: Path) -> int:
    """Files with images in a folder and all below it; each is embedded once by a backbone."""
    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
    names = (name for _, _, files in os.walk(dataset, followlinks=True) for name in files)
    return sum(name.lower().endswith(suffixes) for name in names) or USUAL_IMAGES
