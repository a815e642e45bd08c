"""Steps per second of training the last stage of a backbone from cached activations of its trunk, compared with
the whole network from pixels in every step, measured in one run.

    python benchmarks/tail.py [--quick] [--json FILE] [--backbone NAME ...]

Prototypical networks, meta-batches of 4 episodes, 5 ways, 3 shots, 5 queries a class, at 128 px; a step draws the
rows of a fixed meta-batch from the pool, and computes the loss, its gradients and Adam's step. The reference is
written with PyTorch alone: pixels through the frozen trunk without gradients, then through the tail. Both start from
the same weights. Their first gradients must be the same up to the rounding of activations to float16: equal within
`EXACT` if the reference rounds them too, and within `ROUNDED` if it does not. `memory_map_vs_memory` is the same
step with activations in a file that is mapped into memory: in the file cache, and, `cold`, dropped from it before
every step.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autometa.backbones import Normalise, build_backbone, installed_backbones, split
from autometa.learners.encoder import Encoder, EncoderSpec, build_encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.metric.prototypical import Prototypical, PrototypicalOptions
from autometa.learners.storage import Storage

BACKBONE = "tf_efficientnet_lite0"
TASKS, WAYS, SHOTS, QUERIES = 4, 5, 3, 5
IMAGES = TASKS * WAYS * (SHOTS + QUERIES)
RATE = 1e-4
TRAINABLE = {"vit_small_patch14_dinov2.depth10": 2}
"""Stages to train; one where a backbone is not listed. The last stage of a transformer is only a norm."""
EXACT, ROUNDED = 1e-4, 2e-2
"""Largest relative differences of gradients."""
ROWS = 20_000
"""Of the pool that is mapped into memory."""
MADV_DONTNEED = 4
Step = Callable[[], object]


class WholeNetwork(Encoder):
    """The reference: pixels uint8 [n, 3, px, px] through a frozen trunk and a trained tail, every time; with
    `rounding`, activations between them are rounded to float16."""

    rounding = False

    def __init__(self, name: str, trainable: int, px: int) -> None:
        super().__init__()
        backbone = build_backbone(name, "cpu")
        means, stds = backbone.preprocessing.mean, backbone.preprocessing.std
        self.px = backbone.input_px(px)
        trunk, self.tail = split(backbone.model.requires_grad_(True), trainable)
        self._trunk = [nn.Sequential(Normalise(means, stds), trunk).requires_grad_(False)]
        with torch.no_grad():
            example = self(torch.zeros(1, 3, self.px, self.px, dtype=torch.uint8))
        self.shape = (example.shape[1], example.shape[2], example.shape[3])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pixels → feature maps."""
        with torch.no_grad():
            maps = self._trunk[0](inputs.contiguous(memory_format=torch.channels_last))
        maps = self.tail(maps.half().float() if self.rounding else maps)
        assert isinstance(maps, torch.Tensor)
        return maps


@dataclass
class Tuning:
    """Steps of a learner on a fixed meta-batch: `rows` [b, w * (s + q)] of a pool of `inputs` [n, ...]."""

    encoder: Encoder
    inputs: torch.Tensor
    rows: torch.Tensor

    def __post_init__(self) -> None:
        self.learner = Prototypical(self.encoder, PrototypicalOptions())
        self._optimizer = torch.optim.Adam(self.learner.parameters(), lr=RATE)

    def loss(self) -> torch.Tensor:
        """The loss of the meta-batch, drawn from the pool."""
        drawn = self.inputs[self.rows.flatten()].unflatten(0, self.rows.shape)
        labels = torch.arange(WAYS).expand(TASKS, WAYS)
        episodes = InputEpisodes(
            drawn[:, : WAYS * SHOTS],
            labels.repeat_interleave(SHOTS, dim=1),
            drawn[:, WAYS * SHOTS :],
            labels.repeat_interleave(QUERIES, dim=1),
            torch.full((TASKS,), WAYS),
        )
        return self.learner.loss(episodes)

    def __call__(self) -> None:
        self._optimizer.zero_grad()
        self.loss().backward()
        self._optimizer.step()

    def gradients(self) -> torch.Tensor:
        """The gradients of everything that is trained, side by side."""
        self._optimizer.zero_grad()
        self.loss().backward()
        return torch.cat([p.grad.flatten() for p in self.learner.parameters() if p.grad is not None])


def rounds(steps: dict[str, Step], limit_s: float, before: dict[str, Step] | None = None) -> dict[str, float]:
    """Shortest time of each in seconds, in turns until `limit_s` is over, so that other load affects all; `before`
    runs before each step and is not timed."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # the first one warms up
    began = time.perf_counter()
    while min(map(len, took.values())) < 2 or time.perf_counter() - began < limit_s:
        for name, step in steps.items():
            if before and name in before:
                before[name]()
            start = time.perf_counter()
            step()
            took[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in took.items()}


def row(name: str, seconds: float, reference_s: float, note: str) -> dict[str, Any]:
    """A result, printed."""
    ratio = reference_s / seconds
    print(
        f"{name:<58} {1 / seconds:8.2f} steps/s  {1 / reference_s:8.2f} reference  ratio {ratio:6.2f}  {note}"
    )
    result = {"name": name, "value": 1 / seconds, "unit": "steps/s", "reference": 1 / reference_s}
    return result | {"ratio": ratio, "note": note}


def cached_against_full(name: str, px: int | None, limit_s: float) -> dict[str, Any]:
    """A row for one backbone. AssertionError if the two steps differ."""
    trainable = TRAINABLE.get(name, 1)
    spec = EncoderSpec.model_validate({"network": name, "px": px, "trainable": trainable})
    encoder, whole = build_encoder(spec), WholeNetwork(name, trainable, spec.px)
    images = made_up_images(IMAGES, whole.px)
    start = time.perf_counter()
    inputs = encoder.prepare(images)
    prepare_s = time.perf_counter() - start
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0)).view(TASKS, -1)
    cached = Tuning(encoder, inputs, rows)
    full = Tuning(whole, torch.from_numpy(images), rows)
    off, off_rounded = differences(cached, full)
    assert off < ROUNDED and off_rounded < EXACT, f"{name}: gradients differ by {off:.1e}, {off_rounded:.1e}"
    took = rounds({"cached": cached, "full": full}, limit_s)
    note = (
        f"{trainable} trained stage(s), {whole.px} px; gradients differ by {off:.0e}, {off_rounded:.0e} "
        f"where both round; an image is "
        f"{inputs[0].nbytes / 1e3:.0f} kB and takes {1e3 * prepare_s / IMAGES:.1f} ms once"
    )
    suffix = "" if name == BACKBONE else f"/{name}"
    return row(f"tail/cached_trunk_vs_full{suffix}", took["cached"], took["full"], note)


def differences(cached: Tuning, full: Tuning) -> tuple[float, float]:
    """Relative differences of the gradients, to the reference as it is and to one that rounds activations."""
    assert isinstance(full.encoder, WholeNetwork)
    ours, theirs = cached.gradients(), full.gradients()
    full.encoder.rounding = True
    rounded = full.gradients()
    full.encoder.rounding = False
    return float((ours - theirs).norm() / theirs.norm()), float((ours - rounded).norm() / rounded.norm())


def map_against_memory(limit_s: float) -> list[dict[str, Any]]:
    """Rows for activations in a mapped file: of `ROWS` rows, a step draws others every time."""
    encoder = build_encoder(EncoderSpec(network=BACKBONE, trainable=1))
    few = encoder.prepare(made_up_images(64, 128))
    shape = (ROWS, *few.shape[1:])
    in_memory, mapped = (s.empty(shape, few.dtype) for s in (Storage(), Storage(memory_bytes=0)))
    for pool in (in_memory, mapped):
        for place in range(0, ROWS, len(few)):
            pool[place : place + len(few)] = few[: ROWS - place]
    assert torch.equal(in_memory, mapped)
    generator = torch.Generator().manual_seed(0)

    def step_on(pool: torch.Tensor) -> Step:
        tuning = Tuning(encoder, pool, torch.zeros(1))

        def step() -> None:
            tuning.rows = torch.randperm(ROWS, generator=generator)[:IMAGES].view(TASKS, -1)
            tuning()

        return step

    note = f"{mapped.nbytes / 1e6:.0f} MB in {tempfile.gettempdir()}"
    name, steps = "tail/memory_map_vs_memory", {"memory": step_on(in_memory), "mapped": step_on(mapped)}
    took = rounds(steps, limit_s / 2)
    warm = row(name, took["mapped"], took["memory"], f"{note}, in the file cache")
    took = rounds(steps, limit_s / 2, {"mapped": lambda: drop_from_file_cache(mapped)})
    cold = row(f"{name}/cold", took["mapped"], took["memory"], f"{note}, read from the disk in every step")
    return [warm, cold]


def drop_from_file_cache(mapped: torch.Tensor) -> None:
    """Make the next access of a mapped tensor read the disk (Linux)."""
    files = [file for file in [*Path("/proc/self/fd").iterdir()] if file.exists()]
    fd = next(int(file.name) for file in files if file.stat().st_size == mapped.nbytes)
    os.fdatasync(fd)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(mapped.data_ptr())
    if libc.madvise(address, ctypes.c_size_t(mapped.nbytes), MADV_DONTNEED):  # pages in use are not dropped
        raise OSError(ctypes.get_errno(), "madvise")
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def made_up_images(n: int, px: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [n, 3, px, px]: smooth patterns, so that activations differ from those of noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(n, 3, 8, 8, generator=generator) * 255
    images = nn.functional.interpolate(patterns, (px, px), mode="bilinear").to(torch.uint8)
    return np.asarray(images.numpy())


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{BACKBONE} only: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help="default: all whose weights are here")
    parser.add_argument("--px", type=int, metavar="N", help="default: that of pretrained networks")
    options = parser.parse_args()
    installed = [spec.name for spec in installed_backbones()]
    names = options.backbone or ([BACKBONE] if options.quick else installed)
    limit_s = 3.0 if options.quick else 20.0
    results = [cached_against_full(name, options.px, limit_s) for name in names]
    results += map_against_memory(limit_s)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
