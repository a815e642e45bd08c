"""Axes of the test: ways, shots and tasks, answered from random features in place of networks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _scaling_fit import Costs, timed
from numpy.typing import NDArray

from autometa.backbones import STAGES, Backbone, View, find_spec
from autometa.backbones.architecture import create_model
from autometa.backbones.shelf import BackboneShelf
from autometa.bundles.shipped import BASELINES
from autometa.core.budget import MemoryBudget
from autometa.heads import find_metric
from autometa.heads.class_statistics import ClassStatistics
from autometa.heads.modes import SIX_MODES, collect_keys
from autometa.model.inputs import list_inputs
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from ingestion import IngestionSettings
from ingestion import run as ingest
from ingestion.outputs import write_predictions
from scoring import ScoringSettings, score

NETWORK, PX, BATCH = "tf_efficientnet_lite0", 128, 32
VIEW = View(NETWORK, PX)
WIDTH, KNOWN, TRAINED_CLASSES, SEED = 256, 4096, 40, 98
QUERIES = 5


class RandomFeatures:
    """In place of a feature store: each image has features that its identity picks from a table."""

    def __init__(self, layers: int) -> None:
        generator = torch.Generator().manual_seed(SEED)
        table = torch.randn(KNOWN, layers, WIDTH, generator=generator).abs_()
        self._table = torch.nn.functional.normalize(table, dim=2)
        self.ahead = 0

    def missing(self, view: View, keys: Sequence[Hashable]) -> int:
        """All are known."""
        return 0

    def embed(self, view: View, images: NDArray[np.uint8], keys: Sequence[Hashable]) -> None:
        """Nothing is to be done."""

    def take(self, view: View, keys: Sequence[Hashable]) -> torch.Tensor:
        """Features [n, layers * WIDTH] of these images."""
        places = [hash(key) % KNOWN for key in keys]
        return self._table[places][:, [STAGES.index(layer) for layer in view.layers]].flatten(1)


def make_portfolio() -> Portfolio:
    """A portfolio of one view in all six modes, whose metrics are fitted to random features."""
    features = RandomFeatures(len(STAGES))
    labels = torch.arange(KNOWN) % TRAINED_CLASSES
    metrics = {}
    for one, name in {one for key in collect_keys(SIX_MODES) for one in list_inputs([VIEW], key)}:
        statistics = ClassStatistics()
        statistics.add(features.take(one, range(KNOWN)), labels, 0, [find_metric(name).power])
        metrics[one, name] = statistics.fit(name)
    modes = tuple(WeightedMode(name=name) for name in SIX_MODES)
    portfolio = Portfolio((VIEW,), modes, BackboneShelf("cpu"), metrics, balanced=True)
    portfolio.limit_memory(MemoryBudget(2**40))
    portfolio.store = features  # type: ignore[assignment]
    return portfolio


def make_task(ways: int, shots: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Images of a support set with their labels, and of queries: small, since nothing looks at their pixels but to
    tell them apart."""
    images = rng.integers(0, 256, (ways * (shots + QUERIES), 3, 8, 8), np.uint8)
    n_support = ways * shots
    return images[:n_support], np.arange(ways).repeat(shots), images[n_support:]


def answer(portfolio: Portfolio, ways: int, task: tuple[Any, Any, Any]) -> NDArray[np.float64]:
    """Probabilities [q, ways] of the queries of a task."""
    support, labels, query = task
    return portfolio.fit(support, labels, ways).predict(query)


def measure_ways(costs: Costs, sizes: tuple[int, ...]) -> None:
    """Seconds of a task, by its ways; 5 shots and 5 queries a class."""
    _measure_tasks(costs, [(size, size, 5) for size in sizes])


def measure_shots(costs: Costs, sizes: tuple[int, ...]) -> None:
    """Seconds of a task, by its shots; 5 ways and 5 queries a class."""
    _measure_tasks(costs, [(size, 5, size) for size in sizes])


def _measure_tasks(costs: Costs, forms: Sequence[tuple[int, int, int]]) -> None:
    portfolio, rng = make_portfolio(), np.random.default_rng(SEED)
    for size, ways, shots in forms:
        for _ in range(4):
            task = make_task(ways, shots, rng)
            with costs.of("answer", size):
                answer(portfolio, ways, task)


def embedding_s() -> float:
    """Seconds of processor time that one image takes in one network, EfficientNet-Lite0 at 128 px, eagerly."""
    spec = find_spec(NETWORK)
    backbone = Backbone(spec, create_model(spec), "cpu")
    images = torch.zeros(BATCH, 3, PX, PX, dtype=torch.uint8)
    backbone.embed_layers(images, PX)
    return timed(lambda: backbone.embed_layers(images, PX)) / BATCH


def measure_tasks(costs: Costs, sizes: tuple[int, ...]) -> None:
    """The number of tasks: answered and written by a portfolio with random features, then scored with a report."""
    portfolio = make_portfolio()
    for size in sizes:
        rng = np.random.default_rng(SEED)
        with tempfile.TemporaryDirectory(prefix="scaling-") as scratch:
            results = Path(scratch) / "results"
            results.mkdir()
            with costs.of("answer and write", size):
                forms = [_answer_and_write(portfolio, results, number, rng) for number in range(1, size + 1)]
            truth = {"format": "autometa-truth-1", "seed": SEED, "datasets": ["made up"], "tasks": forms}
            (results / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
            with costs.of("score", size):
                score(ScoringSettings(results, Path(scratch) / "scores"))


def _answer_and_write(
    portfolio: Portfolio, folder: Path, number: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Answer a small task, write what was answered, and return the task's row of the truth."""
    ways, shots = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    found = answer(portfolio, ways, make_task(ways, shots, rng))
    write_predictions(folder, number, found)
    labels = np.arange(ways).repeat(QUERIES).tolist()
    return {"task": number, "dataset": "made up", "ways": ways, "shots": shots, "labels": labels}


def measure_ingested(costs: Costs, sizes: tuple[int, ...], data: Path) -> None:
    """The number of tasks that ingestion draws, hands over and writes, with a submission that answers at random."""
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="scaling-") as scratch:
            settings = IngestionSettings(
                input_data_dir=data,
                submission=BASELINES / "random",
                output_dir=Path(scratch) / "run",
                test_tasks_per_dataset=size,
                ways=(2, 5),
                shots=(1, 3),
                query_images_per_class=QUERIES,
                image_size=32,
                sandbox="none",
                cache_dir=Path(scratch) / "cache",
            )
            with costs.of("ingest", size):
                done = ingest(settings, lambda _: None)
            assert not done.failures, done.failures
