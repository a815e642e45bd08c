"""Latency of portfolios, and what a limit on it costs in accuracy.

    python benchmarks/latency.py [--quick] [--json FILE] [--px N ...]
    python benchmarks/latency.py --data DIR [--datasets A,B] [--seeds 0,1] [--budget 60s] [--limit 30ms] [--json FILE]

The first form measures a portfolio of two backbones in six modes, with metrics of the usual size whose numbers mean
nothing: one image, 5 classes with 5 images each. The reference for one image is the way before class means were kept:
inner products of all images and their factor, for every call; for adapting, it is embedding image by image. The
second form runs `autometa` on the same tasks with and without `--infer-limit`, and compares task by task.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _arena_runs import Unit, collected, datasets_in
from _learner_report import Report, Row, row

from autometa.backbones import Backbone, View, find_spec
from autometa.backbones.build import create_model
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import stopwatch
from autometa.core.units import parse_duration, show_duration
from autometa.data.images import hash_images
from autometa.heads import Metric, find_metric
from autometa.heads.modes import SIX_MODES, collect_keys
from autometa.judging.programs import Ended
from autometa.model.inputs import Images, list_inputs
from autometa.model.latency import Adapts, Latency, Timing, measure_latency
from autometa.model.portfolio import Portfolio, PortfolioPredictor
from autometa.model.portfolio_description import WeightedMode
from run_local import BASELINES

BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1")
WAYS, SHOTS, QUERIES = 5, 5, 5
REPEATS, QUICK_REPEATS, WARM_UPS = 100, 24, 3
OPTIONS = "--shots 1-10 --query-per-class 5 --memory-budget 4GB --image-size 128"


def make_portfolio(px: int) -> Portfolio:
    """Two backbones with random weights, in the fastest engine that is installed; random metrics."""
    shelf, views = BackboneShelf("cpu"), tuple(View(name, px) for name in BACKBONES)
    for view in views:
        spec = find_spec(view.backbone)
        shelf._built[view.backbone] = Backbone(spec, create_model(spec), "cpu")
    shelf.prefer_engines(views, {str(view): "openvino" for view in views})
    generator, metrics = torch.Generator().manual_seed(0), {}
    for key in collect_keys(SIX_MODES):
        for one, name in list_inputs(views, key):
            width = sum(shelf(one.backbone).widths[layer] for layer in one.layers)
            projection = torch.eye(width) + 0.01 * torch.randn(width, width, generator=generator)
            metrics[one, name] = Metric(find_metric(name), mean=torch.zeros(width), projection=projection)
    modes = tuple(WeightedMode(name=name) for name in SIX_MODES)
    return Portfolio(views, modes, shelf, metrics, balanced=True)


def draw_images(px: int) -> tuple[Images, np.ndarray[Any, np.dtype[np.int64]], Images]:
    """Support images, labels and queries: noise, whose time is that of any image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (WAYS * SHOTS + QUERIES, 3, px, px), dtype=np.uint8)
    return images[: WAYS * SHOTS], np.arange(WAYS).repeat(SHOTS), images[WAYS * SHOTS :]


class Naive:
    """The portfolio as it answered before: all is computed for every call."""

    def __init__(self, portfolio: Portfolio) -> None:
        self.portfolio = portfolio
        self.predictor: PortfolioPredictor | None = None

    def fit(self, images: Images, labels: np.ndarray[Any, np.dtype[np.int64]], ways: int) -> Naive:
        """Image by image."""
        for image in images:
            for view in self.portfolio.views:
                self.portfolio.store.embed(view, image[None], hash_images(image[None]))
        self.predictor = self.portfolio.fit(images, labels, ways)
        return self

    def predict(self, images: Images) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Probabilities [q, ways]."""
        assert self.predictor is not None
        scores = self.portfolio._answer_together(self.predictor, images)
        return scores.double().mean(0).softmax(-1).numpy()


def measure_px(px: int, repeats: int) -> list[Row]:
    """One size: the 95th percentile, and the reference by turns in blocks."""
    portfolio, (images, labels, query) = make_portfolio(px), draw_images(px)
    learners: dict[str, Adapts] = {"ours": portfolio, "naive": Naive(portfolio)}
    found: dict[str, list[Latency]] = {"ours": [], "naive": []}
    for name in ("ours", "naive", "ours", "naive"):
        found[name].append(measure_latency(learners[name], (images, labels), query, repeats=repeats))

    def best(name: str, kind: str) -> Timing:
        return min((getattr(each, kind) for each in found[name]), key=lambda timing: timing.p95_ms)

    rows = []
    for kind in ("adapt", "predict"):
        ours, naive = best("ours", kind), best("naive", kind)
        note = f"95th percentile; median {ours.p50_ms:.2f} against {naive.p50_ms:.2f}"
        rows.append(row(f"latency/{kind}_ms/{px}", ours.p95_ms, "ms", naive.p95_ms, note=note))
    rows.append(row(f"latency/batch_ms/{px}", best("ours", "batch").p95_ms, "ms", note=f"{QUERIES} images"))
    rows.append(row(f"latency/cold_ms/{px}", found["ours"][0].adapt.cold_ms, "ms", note="engines are built"))
    return rows


@dataclass(frozen=True)
class Run:
    """What a run came to: accuracy of each task in percent, and what its learner was measured to take."""

    accuracies: np.ndarray[Any, np.dtype[np.float64]]
    serving: dict[str, float]


def run_once(unit: Unit, settings: str) -> Run:
    """One run of `autometa`, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="latency-") as scratch:
        output = Path(scratch) / "run"
        began = time.monotonic()
        done = subprocess.run(
            unit.command(settings, output),
            capture_output=True,
            text=True,
            check=False,
            timeout=unit.budget_s + 600,
        )
        ended = Ended(done.returncode, time.monotonic() - began, late=False)
        result = collected(unit, settings, output, ended, done.stdout + done.stderr)
        if not result.accuracies:
            raise SystemExit(f"{unit.dataset.name}: no scores ({result.reason})")
        learner = json.loads((output / "ingestion" / "model" / "learner.json").read_text(encoding="utf-8"))
        serving = learner.get("validation", {}).get("serving", {})
    return Run(100 * np.array(result.accuracies), serving)


def measure_loss(options: argparse.Namespace, report: Report) -> None:
    """Normalised accuracy that the limit loses, in points, paired by tasks; then the mean over datasets."""
    names = options.datasets.split(",") if options.datasets else datasets_in(options.data)
    limit, budget_s = parse_duration(options.limit), parse_duration(options.budget)
    losses = []
    for name in names:
        differences, took = [], []
        for seed in map(int, options.seeds.split(",")):
            unit = Unit(BASELINES / "autometa", options.data / name, budget_s, seed)
            whole = run_once(unit, OPTIONS)
            limited = run_once(unit, f"{OPTIONS} --infer-limit {show_duration(limit)}")
            differences += (limited.accuracies - whole.accuracies).tolist()
            took.append(1000 * limited.serving.get("infer_s", float("nan")))
        losses.append(float(np.mean(differences)))
        width = 1.96 * float(np.std(differences, ddof=1)) / len(differences) ** 0.5
        took_ms = ", ".join(f"{each:.1f}" for each in took)
        note = f"{len(differences)} tasks; one image in {took_ms} ms (p95, as measured in the run)"
        report.add([row(f"latency/accuracy_gain/{name}", losses[-1], "points", ci95=width, note=note)])
    if len(losses) > 1:
        width = 1.96 * float(np.std(losses, ddof=1)) / len(losses) ** 0.5
        note = f"{len(losses)} datasets, interval over datasets"
        report.add([row("latency/accuracy_gain", float(np.mean(losses)), "points", ci95=width, note=note)])


def main() -> None:
    """Parse the command line, measure, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="one size, few calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--px", nargs="+", type=int, default=[96, 128, 224], metavar="N")
    parser.add_argument("--data", type=Path, help="folder of datasets, for the second form")
    parser.add_argument("--datasets", help="names, comma-separated; all by default")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--budget", default="60s", metavar="TIME")
    parser.add_argument("--limit", default="30ms", metavar="TIME")
    asked = parser.parse_args()
    if asked.data is not None:
        settings = f"{OPTIONS}, {asked.budget}, --infer-limit {asked.limit}, seeds {asked.seeds}"
        measure_loss(asked, Report(asked.json, settings, resume=False))
        return
    elapsed = stopwatch()
    report = Report(asked.json, f"{torch.get_num_threads()} threads, {len(BACKBONES)} views", resume=False)
    for px in [128] if asked.quick else asked.px:
        report.add(measure_px(px, QUICK_REPEATS if asked.quick else REPEATS))
    at_128 = {each["name"]: each for each in report.rows}
    for kind in ("adapt", "predict"):
        if (same := at_128.get(f"latency/{kind}_ms/128")) is not None:
            report.add([same | {"name": f"latency/{kind}_ms"}])
    print(f"{elapsed():.0f} s")


if __name__ == "__main__":
    main()
