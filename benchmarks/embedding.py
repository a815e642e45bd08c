"""How fast images are embedded: each engine against plain PyTorch eager, in turns, on this machine.

    python benchmarks/embedding.py [--quick] [--json FILE] [--backbone NAME ...] [--px N ...]

The reference is the simplest code: `model(batch)` with contiguous float32 images that
are already normalised, in inference mode. Engines start from bytes, normalise them, and return pooled stages 3 and 4
too. `channels-last` is the reference in that memory format. Medians over rounds; in every
round each engine runs once.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from autometa.backbones import Backbone, build_backbone, installed_backbones
from autometa.backbones.engines import EAGER, ENGINES, EngineSpec, RaceInput, build_checked
from autometa.core.machine import Machine

QUICK_S = 10.0
"""Seconds of rounds for all backbones together with --quick; building engines takes longer than that."""
LONGEST_BUILD_S = 10.0
"""With --quick, engines that are expected to take longer to build are left out."""

Run = Callable[[], Any]


def plain_runs(backbone: Backbone, images: torch.Tensor) -> dict[str, Run]:
    """The reference and its channels-last twin: on normalised float32 images, last layer only."""
    contiguous = copy.deepcopy(backbone.model).to(memory_format=torch.contiguous_format)
    network = backbone.network
    floats = network.normalise(images.to(backbone.device)).contiguous()
    last = floats.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def reference() -> None:
        contiguous(floats).cpu()

    @torch.inference_mode()
    def channels_last() -> None:
        backbone.model(last).cpu()

    return {"plain": reference, "channels-last": channels_last}


def engine_runs(backbone: Backbone, images: torch.Tensor, specs: list[EngineSpec]) -> dict[str, Run]:
    """The engines that can be built and agree with eager; prints the seconds of building."""
    size = images.shape[-1]
    widths = list(backbone.widths.values())
    race_input = RaceInput(backbone.network, size, backbone.device, images, widths)
    reference = backbone.embed_layers(images[:4], size)
    runs: dict[str, Run] = {}
    for spec in specs:
        began = time.perf_counter()
        engine = build_checked(spec, race_input, reference)
        if isinstance(engine, str):
            print(f"    {spec.name:<16} {engine}")
            continue
        print(f"    {spec.name:<16} built in {time.perf_counter() - began:.1f} s")
        runs[spec.name] = partial(engine, images)
    return runs


def rounds(runs: dict[str, Run], *, at_least: int, limit_s: float) -> dict[str, float]:
    """Median seconds of each, run in turns until `limit_s` is over, `at_least` rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    began = time.perf_counter()
    while len(times["plain"]) < at_least or time.perf_counter() - began < limit_s:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in times.items()}


def measure(name: str, px: int, images_n: int, specs: list[EngineSpec], limit_s: float) -> dict[str, Any]:
    """One backbone at one size: prints a table, returns the row for the best engine."""
    backbone = build_backbone(name, Machine.detect().device)
    size = backbone.input_px(px)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (images_n, 3, size, size), dtype=torch.uint8, generator=generator)
    print(f"{name} at {size} px, batch {images_n}", flush=True)
    runs = plain_runs(backbone, images) | engine_runs(backbone, images, specs)
    rate = {n: images_n / s for n, s in rounds(runs, at_least=3, limit_s=limit_s).items()}
    for engine, images_s in rate.items():
        against = (
            f"{images_s / rate['plain']:5.2f}x plain {images_s / rate['channels-last']:5.2f}x channels-last"
        )
        print(f"    {engine:<16} {images_s:8.1f} images/s  {against}")
    best = max(runs.keys() - {"plain", "channels-last"}, key=rate.__getitem__)
    print(f"    best: {best}\n", flush=True)
    return {
        "name": f"embedding/{name}/{px}",
        "value": round(rate[best], 2),
        "unit": "images/s",
        "reference": round(rate["plain"], 2),
        "ratio": round(rate[best] / rate["plain"], 3),
    }


def main() -> None:
    """Parse the command line, measure, write."""
    installed = [spec.name for spec in installed_backbones()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: one size, no torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--backbone", nargs="+", default=installed, metavar="NAME")
    parser.add_argument("--px", nargs="+", type=int, metavar="N")
    options = parser.parse_args()
    device = Machine.detect().device
    specs = [s for s in ENGINES.values() if s.installed and device in s.devices]
    if options.quick:
        specs = [s for s in specs if s.build_s <= LONGEST_BUILD_S or s.name == EAGER]
    sizes = options.px or ([128] if options.quick else [128, 224])
    images_n = 16 if options.quick else 64
    pairs = [(name, px) for name in options.backbone for px in sizes]
    limit_s = QUICK_S / max(len(pairs), 1) if options.quick else 10.0
    results = [measure(name, px, images_n, specs, limit_s) for name, px in pairs]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
