"""What `zoo.py` measures of a backbone, each time in a process of its own: memory at its peak, and seconds."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from autometa.backbones import CATALOGUE, Backbone, BackboneSpec, build_backbone, find_spec
from autometa.backbones.architecture import create_model
from autometa.backbones.catalogue import is_packaged
from autometa.core.machine import Machine

REFERENCE, REFERENCE_PX, REFERENCE_BATCH = "tf_efficientnet_lite0", 128, 16
MOST_MEGA_MACS = 40_000
"""Of a batch that is measured, so that large networks get few images."""
LEAST_BATCH, MOST_BATCH = 2, 64
clock = time.perf_counter
ROUND_S, ROUNDS = 1.2, 5
"""Rounds are timed until they have taken so many seconds, at most so many, but two at least."""
PRELOADED = ["autometa.backbones", "autometa.backbones.engines", "onnx", "safetensors.torch"]


@dataclass(frozen=True)
class Measured:
    """Of one backbone on one engine at one size: bytes at the peak of building and of embedding a batch of so many
    images; seconds for an image, and those of the reference run eagerly in turns with it. `note`: why there are
    none."""

    n_bytes: int = 0
    batch: int = 0
    image_s: float = 0.0
    unit_s: float = 0.0
    note: str = ""


def batch_for(mega_macs: float) -> int:
    """How many images of so many multiply-adds to measure with."""
    return int(min(max(MOST_MEGA_MACS / max(mega_macs, 1.0), LEAST_BATCH), MOST_BATCH))


def write_random(name: str, folder: Path) -> None:
    """Random weights of a backbone as a checkpoint, if none come in a package."""
    spec, file = find_spec(name), folder / f"{name}.safetensors"
    if is_packaged(spec) or file.exists():
        return
    torch.manual_seed(0)
    state = create_model(spec).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, file)


class Measurer:
    """Measures in fresh processes, copies of one that has imported all libraries. `folder` has checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        os.environ["AUTOMETA_WEIGHTS_DIR"] = str(folder)
        os.environ["AUTOMETA_CACHES"] = "no"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def write(self, name: str) -> None:
        """The checkpoint of a backbone."""
        with self._context.Pool(1) as pool:
            pool.apply(write_random, (name, self._folder))

    def drop(self, name: str) -> None:
        """Delete the checkpoint again: those of all rows together are large."""
        (self._folder / f"{name}.safetensors").unlink(missing_ok=True)

    def measure(self, name: str, engine: str, px: int, batch: int, *, timed: bool = True) -> Measured:
        """One backbone on one engine at one size; its memory alone where it is not `timed`."""
        with self._context.Pool(1) as pool:
            return pool.apply(_measure, (name, engine, px, batch, timed))


def _measure(name: str, engine: str, px: int, batch: int, timed: bool) -> Measured:
    torch.set_num_threads(Machine.detect().cores)
    torch.ones(64, 64).matmul(torch.ones(64, 64))  # threads and libraries have started
    images = torch.randint(0, 256, (batch, 3, px, px), dtype=torch.uint8)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak is measured from here
    network = build_backbone(name, "cpu")
    network.prefer(engine, px)
    network.prepare(images, px, n_images=10_000)
    choice = network.choice(px)
    if choice is None or choice.name != engine:
        return Measured(note=str(choice.notes if choice else "not chosen"))
    network.embed_layers(images, px)
    n_bytes = _memory("VmHWM") - before
    image_s, unit_s = _time(network, images, px) if timed else (0.0, 0.0)
    return Measured(n_bytes, batch, image_s, unit_s)


def _time(network: Backbone, images: torch.Tensor, px: int) -> tuple[float, float]:
    """Median seconds for an image with a network, and with the reference run eagerly, in turns."""
    unit, unit_images = build_backbone(REFERENCE, "cpu"), images[:1].repeat(REFERENCE_BATCH, 1, 1, 1)
    unit_images = unit.preprocessing.resize(unit_images, REFERENCE_PX)
    pairs = [(network, images, px), (unit, unit_images, REFERENCE_PX)]
    rounds: list[list[float]] = []
    began = clock()
    unit.embed_layers(unit_images, REFERENCE_PX)
    while len(rounds) < 2 or (len(rounds) < ROUNDS and clock() - began < ROUND_S):
        seconds = []
        for each, batch, size in pairs:
            start = clock()
            each.embed_layers(batch, size)
            seconds.append((clock() - start) / len(batch))
        rounds.append(seconds)
    return median(one for one, _ in rounds), median(other for _, other in rounds)


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def rows() -> list[BackboneSpec]:
    """Those whose weights come in a package that is installed, and those of the hub."""
    return [spec for spec in CATALOGUE.values() if spec.packaged is None or is_packaged(spec)]
