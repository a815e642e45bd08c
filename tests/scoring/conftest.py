"""A small run to score: two datasets, three tasks, predictions that are right but for one image."""

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_TRUTH: dict[str, Any] = {
    "format": "autometa-truth-1",
    "seed": 93,
    "datasets": ["B10", "B2"],
    "tasks": [
        {"task": 1, "dataset": "B10", "ways": 2, "shots": 1, "labels": [0, 1, 0, 1]},
        {"task": 2, "dataset": "B10", "ways": 3, "shots": 2, "labels": [0, 1, 2, 2, 1, 0]},
        {"task": 3, "dataset": "B2", "ways": 2, "shots": 2, "labels": [1, 1, 0, 0]},
    ],
}

MakeRun = Callable[..., Path]

CHOICES: dict[str, Any] = {
    "format": "autometa-choices-1",
    "what": "The learner joins two views.",
    "why": "Time went to what was expected to gain most.",
    "members": [
        {"name": "net_a@128", "kind": "view", "weight": 0.75, "accuracy": 0.9},
        {"name": "net_b+tuned@128", "kind": "trained", "weight": 0.25},
        {"name": "root", "kind": "mode", "weight": 1.0},
    ],
    "trials": [
        {"name": "net_a@128", "kind": "view", "predicted_s": 3.0, "actual_s": 2.0, "expected_gain": 0.0},
        {
            "name": "net_b+tuned@128",
            "kind": "trained",
            "predicted_s": 2.0,
            "actual_s": 9.0,
            "expected_gain": 0.004,
            "gain": -0.01,
            "error": 0.005,
            "outcome": "undone",
        },
        {"name": "net_c@128", "kind": "view", "actual_s": 1.0, "outcome": "failed", "note": "MemoryError"},
    ],
    "served": [
        {"seconds": 1.0, "stage": "bootstrap"},
        {"seconds": 3.0, "stage": "default", "accuracy": 0.8, "low": 0.7, "high": 0.9},
        {"seconds": 6.0, "stage": "final", "accuracy": 0.85, "low": 0.6, "high": 1.0},
    ],
    "meta_test_bytes": 1_300_000_000,
}
"""What a submission may tell, as its `choices.json` holds it."""

PICTURE = base64.b64encode(
    b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\x00" * 60  # enough of a JPEG file to be taken for one
).decode()

SAMPLES: dict[str, Any] = {
    "format": "autometa-samples-1",
    "classes": [
        {"dataset": "B10", "name": "oak", "pictures": [PICTURE]},
        {"dataset": "B10", "name": "elm", "pictures": [PICTURE, PICTURE]},
        {"dataset": "B10", "name": "ash", "pictures": []},
        {"dataset": "B2", "name": "cat", "pictures": [PICTURE]},
        {"dataset": "B2", "name": "dog", "pictures": [PICTURE]},
    ],
    "tasks": [[0, 1], [2, 0, 1], [3, 4]],
    "episodes": [
        {
            "task": 1,
            "support": [[PICTURE], [PICTURE]],
            "queries": [{"position": 0, "picture": PICTURE}, {"position": 1, "picture": PICTURE}],
        }
    ],
}
"""Pictures for the small run, as `samples.json` holds them."""


@pytest.fixture
def choices_content() -> dict[str, Any]:
    """Return what `choices.json` of the small run holds, free to be changed."""
    return copy.deepcopy(CHOICES)


@pytest.fixture
def samples_content() -> dict[str, Any]:
    """Return what `samples.json` of the small run holds, free to be changed."""
    return copy.deepcopy(SAMPLES)


@pytest.fixture
def truth_content() -> dict[str, Any]:
    """Return what `truth.json` of the small run holds, free to be changed."""
    return copy.deepcopy(_TRUTH)


@pytest.fixture
def make_run(tmp_path: Path, truth_content: dict[str, Any]) -> MakeRun:
    """Return a function that writes a results folder; a file set to None is left out."""

    def make(folder: str = "results", **files: str | bytes | None) -> Path:
        results = tmp_path / folder
        results.mkdir()
        content: dict[str, str | bytes | None] = {
            "truth.json": json.dumps(truth_content),
            "metadata_ingestion": "Total execution time: 12.5\nMeta-train time: 1e-05\nMeta-test time: 2.0\n",
        }
        for task in truth_content["tasks"]:
            scores = np.eye(task["ways"])[task["labels"]]
            if task["task"] == 1:
                scores[0] = [0.4, 0.6]
            rows = (" ".join(f"{value:f}" for value in row) for row in scores)
            content[f"task_{task['task']}.predict"] = "\n".join(rows) + "\n"
        for name, data in (content | files).items():
            if data is not None:
                (results / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return results

    return make
