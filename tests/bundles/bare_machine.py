"""A program as the original ingestion is one, on a machine that has only what is in one folder: run it by
`python -I -S bare_machine.py PACKAGES BUNDLE MODEL_FOLDER`. It prints the accuracy and where modules came from."""

from __future__ import annotations

import importlib
import sys

packages, bundle, model_dir = sys.argv[1:]
sys.path += [packages]
sys.path.insert(0, bundle)

import json  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

WAYS, SHOTS, QUERIES, PX = 5, 4, 6, 64


def stripes(label: int, number: int) -> np.ndarray:
    """A noisy image whose colour and stripes tell its class, float32 [3, px, px] in [0, 1]."""
    colour = np.random.default_rng(label).uniform(0.2, 0.8, (3, 1, 1))
    lines = ((np.arange(PX) // (1 + label % 5)) % 2)[None, None, :] * 0.2
    noise = np.random.default_rng([label, number]).normal(0, 0.05, (3, PX, PX))
    return (colour + lines + noise).clip(0, 1).astype(np.float32)


def tasks(first_class: int, classes: int, count: int) -> Iterator[Any]:
    """Episodes of some classes."""
    rng = np.random.default_rng(first_class)
    for _ in range(count):
        chosen = first_class + rng.permutation(classes)[:WAYS]
        sets = []
        for begin, images in ((0, SHOTS), (SHOTS, QUERIES)):
            labels = np.repeat(np.arange(WAYS), images)
            numbers = np.tile(np.arange(begin, begin + images), WAYS)
            pixels = np.stack([stripes(chosen[i], int(n)) for i, n in zip(labels, numbers, strict=True)])
            original = torch.from_numpy(chosen[labels])
            sets.append((torch.from_numpy(pixels), torch.from_numpy(labels), original))
        parts = {"support_set": sets[0], "query_set": sets[1], "original_class_idx": chosen}
        yield SimpleNamespace(num_ways=WAYS, num_shots=SHOTS, dataset="D", **parts)


def main() -> None:
    """Meta-train, save, and answer with what was loaded."""
    model = __import__("model")
    logger = SimpleNamespace(log=lambda *_, **__: None)
    learner = model.MyMetaLearner(WAYS, 20, logger).meta_fit(lambda n: tasks(0, 20, n), None)
    learner.save(model_dir)
    hits = []
    for task in tasks(100, 10, 4):
        learner = model.MyLearner()
        learner.load(model_dir)
        predictor = learner.fit((*task.support_set, WAYS, SHOTS))
        answers = predictor.predict(task.query_set[0])
        hits.append(float((answers.argmax(1) == task.query_set[1].numpy()).mean()))
    names = ("scipy", "optuna", "pydantic", "torch")  # a short search may not need all of them
    places = {name: importlib.import_module(name).__file__ for name in names}
    print(json.dumps({"accuracy": float(np.mean(hits)), "places": places}))


if __name__ == "__main__":
    main()
