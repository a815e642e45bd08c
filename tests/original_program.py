"""A program that does what the original ingestion does: it sets no environment variables, its tasks have no
`image_sets`, and module `api` is the bundle's."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

PRELOADED = ["torch", "timm", "scipy.optimize", "pydantic"]
"""Modules of no bundle, which every bundle's process would take seconds to import."""
CLASSES, WAYS, SHOTS, QUERIES = 14, 5, 4, 6
TRAINING_TASKS, TASKS = 4, 4


class Task:
    """What the original program gives for a task."""


class Logger:
    """The original program's, which keeps nothing here."""

    def log(self, *args: object, **kwargs: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Played:
    """How a bundle did: its exit status, the mean accuracy over the tasks, and what it printed."""

    status: int | None
    accuracy: float
    output: str


def play(bundle: Path, model: Path) -> Played:
    """Meta-train, save, and answer some tasks with a bundle, in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    output, result = model / "output.txt", model / "accuracy.txt"
    process = context.Process(target=_play, args=(bundle, model, output, result))
    process.start()
    process.join()
    accuracy = float(result.read_text()) if result.exists() else float("nan")
    return Played(process.exitcode, accuracy, output.read_text())


def _play(bundle: Path, model: Path, output: Path, result: Path) -> None:
    with output.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    for name in [name for name in os.environ if name.startswith(("METADL", "AUTOMETA"))]:
        del os.environ[name]
    os.chdir(model)
    sys.path.insert(1, str(bundle))
    result.write_text(str(_accuracy(model)))  # an error is printed by `multiprocessing`


def _accuracy(model: Path) -> float:
    bundle: Any = importlib.import_module("model")
    learner = bundle.MyMetaLearner(WAYS, CLASSES, Logger()).meta_fit(
        lambda n: _generate(min(n, TRAINING_TASKS)), None
    )
    learner.save(str(model))
    hits = []
    for task in _generate(TASKS):
        learner = bundle.MyLearner()
        learner.load(str(model))
        predictor = learner.fit((*task.support_set, task.num_ways, task.num_shots))
        predictions = predictor.predict(task.query_set[0])
        assert isinstance(predictions, np.ndarray) and predictions.shape == (QUERIES * WAYS, WAYS)
        hits.append((predictions.argmax(1) == task.query_set[1].numpy()).mean())
    return float(np.mean(hits))


def _generate(tasks: int) -> Iterator[Any]:
    colours = torch.rand(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    rng = np.random.RandomState(93)

    def draw(classes: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = np.repeat(np.arange(classes), each)
        noise = torch.from_numpy(rng.normal(0, 0.05, (len(labels), 3, 64, 64))).float()
        return (colours[chosen][labels] + noise).clamp(0, 1), torch.from_numpy(labels)

    for _ in range(tasks):
        task: Any = Task()
        chosen = rng.permutation(CLASSES)[:WAYS]
        sets = [draw(WAYS, each) for each in (SHOTS, QUERIES)]
        task.num_ways, task.num_shots, task.dataset = WAYS, SHOTS, "COLOURS"
        task.original_class_idx = chosen
        task.support_set, task.query_set = (
            (images, labels, torch.from_numpy(chosen[labels])) for images, labels in sets
        )
        yield task
