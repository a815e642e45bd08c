"""Backbones of the catalogue: predicted against measured cost, and what photos gain at the size that they have.

    python benchmarks/zoo.py [--quick] [--json FILE] [--backbone NAME ...] [--px N ...] [--engine NAME ...]
    python benchmarks/zoo.py --data DIR [--dataset TUXPHOTO_320] [--seeds 0,1] [--budget 180] [--json FILE]

The first form builds networks with random weights and needs no network. Each backbone is loaded from a checkpoint and
embeds images at two sizes on each engine that serves its kind, in a process of its own (Linux). Seconds and memory
are predicted as the search predicts them (`autometa/backbones/costs.py`): seconds from what EfficientNet-Lite0 takes
here on the same engine. What `python scripts/count_costs.py --fit FILE` needs is in the rows. The second form runs
`autometa` on the same tasks with images prepared at 128 px and at the size that they have.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _learner_report import Report, Row, row
from _zoo_measure import REFERENCE, REFERENCE_PX, Measured, Measurer, batch_for, rows

from autometa.backbones import EAGER, BackboneSpec, find_spec, predict_bytes, work_of
from autometa.backbones.costs import counts_at, runs_on
from autometa.backbones.engines import ENGINES

QUICK = ("mobilenetv4_conv_small.e2400_r224_in1k", "vit_tiny_patch16_224.augreg_in21k")
USUAL_ENGINES = (EAGER, "openvino", "onnxruntime")
"""`torch.compile` takes up to half a minute to build: only where it is named."""
OPTIONS = "--shots 1-10 --query-per-class 5 --memory-budget 4GB"


@dataclass
class Comparison:
    """Measures backbones and compares with what is predicted. `units`: how long the work of the reference takes here,
    by engine, in relation to its work on eager PyTorch."""

    measurer: Measurer
    timed: bool
    units: dict[str, float] = field(default_factory=dict)

    def probe(self, engines: Sequence[str]) -> None:
        """Measure the reference on each engine."""
        for engine in engines if self.timed else ():
            found = self.measurer.measure(REFERENCE, engine, REFERENCE_PX, 16)
            work, unit = work_of(find_spec(REFERENCE), REFERENCE_PX, engine), _reference_work()
            assert work is not None and not found.note, f"{REFERENCE} on {engine}: {found.note}"
            self.units[engine] = found.image_s / found.unit_s * unit / work

    def compare(self, spec: BackboneSpec, engine: str, px: int) -> Iterator[Row]:
        """Predicted against measured seconds and bytes of one backbone on one engine at one size; a row that says why
        where it cannot be measured."""
        counts = counts_at(spec, px)
        batch = batch_for(counts.dense + counts.grouped if counts else 0.0)
        try:
            found = self.measurer.measure(spec.name, engine, px, batch, timed=self.timed)
        except Exception as error:  # noqa: BLE001 - whatever happens in the other process is a result
            found = Measured(note=f"{type(error).__name__}: {error}"[:200])
        about: dict[str, Any] = {"backbone": spec.name, "engine": engine, "px": px, "measured": {}}
        name = f"zoo/{spec.name}/{px}" + ("" if engine == EAGER else f"/{engine}")
        if found.note:
            yield row(f"{name}/failed", 1.0, "failed", note=found.note, **about)
            return
        seconds = found.image_s / found.unit_s if self.timed else 0.0
        measured = {"seconds": seconds, "n_bytes": found.n_bytes, "batch": found.batch} if self.timed else {}
        work = work_of(spec, px, engine)
        if self.timed and work is not None:
            predicted = found.unit_s / _reference_work() * self.units[engine] * work
            yield row(f"{name}/predicted_vs_measured_s", predicted, "s", found.image_s)
        predicted_bytes = predict_bytes(spec, px, found.batch, engine) / 2**20
        yield row(
            f"{name}/predicted_vs_measured_bytes",
            predicted_bytes,
            "MiB",
            found.n_bytes / 2**20,
            **(about | {"measured": measured}),
        )


def _reference_work() -> float:
    work = work_of(find_spec(REFERENCE), REFERENCE_PX)
    assert work is not None, f"{REFERENCE} is counted"
    return work


def summarise(found: Sequence[Row]) -> Iterator[Row]:
    """How many predictions are within 30 %."""
    for ending in ("predicted_vs_measured_s", "predicted_vs_measured_bytes"):
        ratios = [one["ratio"] for one in found if one["name"].endswith(ending) and one["ratio"]]
        if ratios:
            within = sum(0.7 <= ratio <= 1.3 for ratio in ratios)
            note = f"{within} of {len(ratios)} within 30 %, {min(ratios):.2f} to {max(ratios):.2f}"
            yield row(f"zoo/all/{ending}", median(ratios), "times", 1.0, note=note)
    if failed := sum(one["name"].endswith("/failed") for one in found):
        yield row("zoo/all/failed", failed, "rows", 0.0)


def measure_native_px(dataset: Path, seeds: list[int], budget_s: float) -> Row:
    """What preparing images at the size that they have gains over 128 px, paired by tasks."""
    from _arena_runs import Runner, Unit  # noqa: PLC0415 - every process that measures imports this file

    from run_local import BASELINES  # noqa: PLC0415

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
    parser.add_argument("--quick", action="store_true", help="two small backbones at one size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help="all of the catalogue by default")
    parser.add_argument("--px", nargs="+", type=int, default=[112, 224], metavar="N")
    parser.add_argument("--engine", nargs="+", default=list(USUAL_ENGINES), choices=list(ENGINES))
    parser.add_argument("--memory-only", action="store_true", help="no seconds: on a machine that is busy")
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
    names = asked.backbone or (QUICK if asked.quick else [spec.name for spec in rows()])
    report = Report(asked.json, f"{torch.get_num_threads()} threads, random weights", resume=False)
    engines = [name for name in asked.engine if ENGINES[name].installed]
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        comparison = Comparison(Measurer(Path(folder)), timed=not asked.memory_only)
        comparison.probe(engines)
        for spec in map(find_spec, names):
            comparison.measurer.write(spec.name)
            for px in asked.px[:1] if asked.quick else asked.px:
                for engine in engines:
                    if runs_on(spec, engine):
                        size = max(px // spec.patch_px, 1) * spec.patch_px
                        report.add(list(comparison.compare(spec, engine, size)))
            comparison.measurer.drop(spec.name)
        report.add(list(summarise(report.rows)))


if __name__ == "__main__":
    main()
