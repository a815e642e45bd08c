"""Backbones of the catalogue: predicted against measured cost, and what photos gain at the size that they have.

    python benchmarks/zoo.py [--quick] [--json FILE] [--backbone NAME ...] [--px N ...]
    python benchmarks/zoo.py --data DIR [--dataset TUXPHOTO_320] [--seeds 0,1] [--budget 180] [--json FILE]

The first form builds networks with random weights and needs no network. Seconds for an image are predicted as the
search predicts them: from what EfficientNet-Lite0 takes here and the relative cost in the catalogue. Memory is
predicted from the weights and the pixels of a batch, and measured as the peak of a process (Linux). The second form
runs `autometa` on the same tasks with images prepared at 128 px and at the size that they have.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from _arena_runs import Runner, Unit
from _learner_report import Report, Row, row

from autometa.backbones import CATALOGUE, Backbone, find_spec, predict_bytes
from autometa.backbones.build import create_model
from run_local import BASELINES

REFERENCE = "tf_efficientnet_lite0"
QUICK = (
    "mobilenetv4_conv_small.e2400_r224_in1k",
    "convnext_atto.d2_in1k",
    "vit_tiny_patch16_224.augreg_in21k",
)
BATCH, ROUNDS, MEMORY_BATCH = 16, 5, 64
OPTIONS = "--shots 1-10 --query-per-class 5 --memory-budget 4GB"


def build(name: str) -> Backbone:
    """A backbone with random weights."""
    spec = find_spec(name)
    return Backbone(spec, create_model(spec), "cpu")


def seconds_per_image(name: str, px: int) -> tuple[float, float]:
    """Median seconds for an image with a backbone at a size, and with the reference at 128 px, in turns."""
    pairs = [(build(name), px), (build(REFERENCE), 128)]
    rounds = []
    for _ in range(ROUNDS + 1):
        seconds = []
        for network, size in pairs:
            images = torch.zeros(BATCH, 3, size, size, dtype=torch.uint8)
            began = time.perf_counter()
            network.embed_layers(images, size)
            seconds.append((time.perf_counter() - began) / BATCH)
        rounds.append(seconds)
    return median(one for one, _ in rounds[1:]), median(other for _, other in rounds[1:])


def peak_bytes(name: str, px: int) -> int:
    """Memory that building a backbone and embedding a batch takes at its peak, in a process of its own."""
    before = _memory("VmRSS")
    network = build(name)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak is measured from here
    network.embed_layers(torch.zeros(MEMORY_BATCH, 3, px, px, dtype=torch.uint8), px)
    return _memory("VmHWM") - before


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure_cost(name: str, px: int) -> Iterator[Row]:
    """Predicted against measured seconds and bytes of one backbone at one size."""
    spec = find_spec(name)
    measured_s, unit_s = seconds_per_image(name, px)
    predicted_s = unit_s * spec.relative_cost * (px / 128) ** 2
    yield row(f"zoo/{name}/{px}/predicted_vs_measured_s", predicted_s, "s", measured_s)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measured = pool.apply(peak_bytes, (name, px))
    predicted = predict_bytes(spec, px, MEMORY_BATCH)
    yield row(f"zoo/{name}/{px}/predicted_vs_measured_bytes", predicted / 2**20, "MiB", measured / 2**20)


def measure_native_px(dataset: Path, seeds: list[int], budget_s: float) -> Row:
    """What preparing images at the size that they have gains over 128 px, paired by tasks."""
    differences: list[float] = []
    with tempfile.TemporaryDirectory(prefix="zoo-") as scratch:
        for seed in seeds:
            scores = []
            for px in ("128", "auto"):
                runner = Runner(Path(scratch) / px, f"{OPTIONS} --image-size {px}")
                runner.folder.mkdir(exist_ok=True)
                result = runner.run(Unit(BASELINES / "autometa", dataset, budget_s, seed))
                assert result is not None and result.accuracies, f"{dataset}: {result}"
                scores.append(100 * np.array(result.accuracies))
                print(f"{dataset.name}, seed {seed}, {px} px: {scores[-1].mean():.1f} %", flush=True)
            differences += (scores[1] - scores[0]).tolist()
    width = 1.96 * float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    note = f"{dataset.name}, seeds {','.join(map(str, seeds))}, {budget_s:g} s, {len(differences)} tasks"
    return row("zoo/native_px_gain", float(np.mean(differences)), "points", ci95=width, note=note)


def main() -> None:
    """Parse the command line, measure, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="three small backbones at one size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help="all of the catalogue by default")
    parser.add_argument("--px", nargs="+", type=int, default=[112, 224], metavar="N")
    parser.add_argument("--data", type=Path, help="folder of datasets, for the second form")
    parser.add_argument("--dataset", default="TUXPHOTO_320")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--budget", type=float, default=180.0)
    asked = parser.parse_args()
    if asked.data is not None:
        seeds = [int(seed) for seed in asked.seeds.split(",")]
        report = Report(asked.json, f"{OPTIONS}", resume=False)
        report.add([measure_native_px(asked.data / asked.dataset, seeds, asked.budget)])
        return
    names = asked.backbone or (QUICK if asked.quick else list(CATALOGUE))
    report = Report(asked.json, f"batch {BATCH}, {torch.get_num_threads()} threads, eager", resume=False)
    for name in names:
        for px in asked.px[:1] if asked.quick else asked.px:
            report.add(list(measure_cost(name, find_spec(name).patch_px * (px // find_spec(name).patch_px))))


if __name__ == "__main__":
    main()
