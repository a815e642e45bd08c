"""Measuring the profile of this machine, within the limits that hold for this process: a few short benchmarks.

`python -m autometa.tuning.measured NAME FILE` writes it as YAML. A process that may use one processor
only (`taskset`) measures a machine with one.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from pydantic import ByteSize

from autometa.backbones import Backbone, find_spec
from autometa.backbones.architecture import create_model
from autometa.bundles.shipped import DEMO
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import ConfigError
from autometa.core.machine import Machine, free_bytes
from autometa.heads.features import FeatureBatch, unit
from autometa.heads.modes import SIX_MODES, apply_modes, collect_keys
from autometa.tuning.profiles import Profile, Speeds
from ingestion import decode_image, read_source

NETWORK, PX, BATCH = "tf_efficientnet_lite0", 128, 64
"""What embeds, with random weights: the network that all machines can run."""
IMAGES_AHEAD = 20_000
"""Images that choosing an engine is told to expect: as many as a run has, so that it takes the engine of a run."""
ENGINE_S = 30.0
WAYS, SHOTS, QUERIES, WIDTH = 10, 5, 5, 1280
"""The task that is answered, and the length of its features."""
FILES = 240
"""Images of the demo that are decoded, about."""
STARTS = 2
IMPORT = "import torch, timm"


def measure_profile(name: str = "", *, seconds: float = 2.0) -> Profile:
    """The profile of this machine as this process may use it. Each benchmark but that of the start takes about
    `seconds`, and choosing an engine some more. ConfigError where a process that imports torch does not start."""
    machine = Machine.detect()
    gpu_start_s = machine.warm_up()
    gpu_bytes = free_bytes(machine.device)
    speeds = Speeds(
        heads=_most_per_second(_answer_tasks(), 1, seconds),
        embedding=_most_per_second(_embed_images(machine.device), BATCH, seconds),
        start=1 / min(_start_s() for _ in range(STARTS)),
        disk=_most_per_second(*_decode_images(machine.cores), seconds),
    )
    return Profile(
        name=name or platform.node() or "here",
        machine=f"{platform.machine()}, {platform.system()}, {machine.device}",
        cores=machine.cores,
        memory=ByteSize(machine.memory_bytes),
        gpu_memory=None if gpu_bytes is None else ByteSize(gpu_bytes),
        gpu_start_s=round(gpu_start_s, 2),
        measured=Speeds(**{kind: float(f"{value:.4g}") for kind, value in speeds}),
        sources={"measured": "measure_profile, the best of its rounds"},
    )


def _most_per_second(work: Callable[[], object], items: int, seconds: float) -> float:
    """Items in a second, in the fastest round: other work on the machine makes rounds slower, never faster."""
    work()  # what the first round takes longer is not the pace
    elapsed, best_s = stopwatch(), float("inf")
    while elapsed() < seconds or best_s == float("inf"):
        round_s = stopwatch()
        work()
        best_s = min(best_s, round_s())
    return items / best_s


def _answer_tasks() -> Callable[[], object]:
    """Answers a task in all six modes, from features that are drawn at random."""
    generator = torch.Generator().manual_seed(0)
    s, q = WAYS * SHOTS, WAYS * QUERIES
    features = unit(torch.randn(1, s + q, WIDTH, generator=generator))
    labels = torch.arange(WAYS).repeat_interleave(SHOTS)[None]
    batch = FeatureBatch(features[:, :s], labels, features[:, s:], torch.tensor([WAYS]))
    batches = dict.fromkeys(collect_keys(SIX_MODES), batch)
    return lambda: apply_modes(SIX_MODES, batches, balanced=True)


def _embed_images(device: str) -> Callable[[], object]:
    """Embeds a batch on the engine that a run would take."""
    spec = find_spec(NETWORK)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(spec, create_model(spec), device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, PX, PX), dtype=torch.uint8, generator=generator)
    backbone.prepare(images, PX, n_images=IMAGES_AHEAD, budget=TimeBudget.of(ENGINE_S))
    return lambda: backbone.embed_layers(images, PX)


def _start_s() -> float:
    """Seconds that a new process takes to import torch and timm, and to end."""
    elapsed = stopwatch()
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"measuring this machine: `{IMPORT}` fails in a new process ({last[:200]})")
    return elapsed()


def _decode_images(cores: int) -> tuple[Callable[[], object], int]:
    """Reads and decodes images of the demo on all cores; and how many."""
    files = [file for dataset in read_source(DEMO).datasets.values() for file in dataset.files]
    some = files[:: max(len(files) // FILES, 1)]

    def decode() -> Sequence[object]:
        with ThreadPoolExecutor(cores) as pool:
            return list(pool.map(_decode, some))

    return decode, len(some)


def _decode(file: Path) -> object:
    return decode_image(file.read_bytes(), PX)


def main(arguments: list[str]) -> None:
    """Measure, and write."""
    name, file = arguments
    measure_profile(name).save(Path(file))


if __name__ == "__main__":
    main(sys.argv[1:])
