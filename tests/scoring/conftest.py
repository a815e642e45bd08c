"""A small run to score: two datasets, three tasks, predictions that are right but for one image."""

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
