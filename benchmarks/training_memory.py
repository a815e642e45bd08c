"""Predicted against measured peaks of memory of training steps, each in a process of its own.

    python benchmarks/training_memory.py [--quick] [--json FILE]

What is predicted follows from two tiny steps (`autometa.learners.training_memory`). What is measured is, on a GPU,
what its allocator told, and on a CPU what the process grew by at its peak, libraries and all. Alone on two cores it
takes about two minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _learner_report import Report, Row, row

from autometa.core.budget import UNLIMITED, MemoryBudget
from autometa.core.machine import Machine
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import EpisodeSampler, PoolSource
from autometa.learners.hooks import ClassTrained
from autometa.learners.optimizers import OPTIMIZERS
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.tail_classification import tune_tail
from autometa.learners.training_memory import StepMemory, StepRecord
from autometa.learners.training_settings import TrainingSettings

CLASSES, PER_CLASS, STEPS = 32, 12, 3
SPEC = EpisodeSpec(ways=(5, 5), shots=(5, 5), queries_per_class=5)
UNBOUNDED = MemoryBudget(2**50)


@dataclass(frozen=True)
class Case:
    """A learner (`tuned`: classification of whole batches) on the last `trainable` stages of a network."""

    network: str
    px: int
    learner: str
    trainable: int = 0
    batch: int = 4


QUICK = (Case("conv4", 28, "prototypical"), Case("conv4", 28, "maml"))
CASES = (
    *QUICK,
    Case("conv4", 28, "fomaml"),
    Case("conv4", 84, "maml", batch=2),
    Case("resnet12", 84, "prototypical", batch=2),
    Case("tf_efficientnet_lite0", 128, "tuned", 2, 64),
    Case("tf_efficientnet_lite0", 224, "tuned", 2, 64),
    Case("tf_efficientnet_lite0", 128, "metadelta", 2),
    Case("tf_efficientnet_lite0", 128, "prototypical", 1, 2),
)


def synthetic_pool(px: int) -> ImagePool:
    """Noise, of some classes."""
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 3, px, px), dtype=np.uint8)
    return ImagePool(images, labels, np.zeros(CLASSES, dtype=np.int64), ("noise",))


def measure(case: Case) -> tuple[StepRecord, int]:
    """What was predicted, and the bytes of some steps at their peak."""
    device = Machine.detect().device
    Machine.detect().warm_up()
    torch.manual_seed(0)
    learner = "prototypical" if case.learner == "tuned" else case.learner
    options = {"steps": 1} if learner in {"maml", "fomaml"} else {}
    encoder = EncoderSpec(network=case.network, px=case.px, trainable=case.trainable)
    built = build_learner(Recipe(learner=learner, encoder=encoder, options=options)).to(device)
    pool = synthetic_pool(case.px)
    if case.learner == "tuned":
        images, labels = PreparedImages(pool.images), torch.from_numpy(pool.labels)
        images.inputs_for(built.encoder)
        found: list[StepRecord | None] = []

        def tune() -> None:
            found.append(tune_tail(built.encoder, images, labels, UNLIMITED, STEPS, UNBOUNDED).memory)  # type: ignore[arg-type]

        took = peak_bytes(tune, device)
        assert found[0] is not None
        return found[0], took
    sampler = EpisodeSampler(pool, np.arange(CLASSES), SPEC, np.random.default_rng(0))
    source = PoolSource(built.encoder.prepare(pool.images), sampler)
    module = torch.nn.ModuleList([built])
    if isinstance(built, ClassTrained):
        module.append(built.begin_training(CLASSES).to(device))
    trained = [p for p in module.parameters() if p.requires_grad]
    settings = TrainingSettings(meta_batch=case.batch)
    optimizer = OPTIMIZERS[settings.optimizer](trained)
    memory = StepMemory(built, trained, settings, device, UNBOUNDED)
    memory.plan(source)
    optimizer.zero_grad()

    def steps() -> None:
        for _ in range(STEPS):
            episodes = source.draw(case.batch).to(device)
            optimizer.zero_grad()
            built.accumulate(episodes)
            optimizer.step()

    took = peak_bytes(steps, device)
    assert memory.record is not None
    return memory.record, took


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """By which the memory of the device, or of this process, is larger at the peak of work."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before shall not be used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """Bytes of main memory of this process: `VmRSS` now, `VmHWM` at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def compare(case: Case) -> Row:
    """The row of a case."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        record, took = pool.apply(measure, (case,))
    depth = f", last {case.trainable} stages" if case.trainable else ""
    name = f"memory/{case.network}/{case.px}/{case.batch}/{case.learner}/predicted_vs_measured"
    return row(name, record.predicted_bytes / 2**20, "MiB", took / 2**20, note=f"{case.learner}{depth}")


def main() -> None:
    """Parse the command line, measure, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="two learners on Conv-4: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    asked = parser.parse_args()
    report = Report(asked.json, Machine.detect().device, resume=False)
    for case in QUICK if asked.quick else CASES:
        report.add([compare(case)])


if __name__ == "__main__":
    main()
