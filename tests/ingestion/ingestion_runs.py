"""Whole runs of ingestion, for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ingestion import Event, IngestionSettings, run
from ingestion.result import IngestionResult

TASKS = 4


class Runner:
    """Runs a bundle and keeps what it showed."""

    def __init__(self, dataset: Path, output: Path) -> None:
        self.dataset, self.output = dataset, output
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] = self.events.append

    def __call__(self, bundle: Path, *, overwrite: bool = False, **settings: Any) -> IngestionResult:
        defaults: dict[str, Any] = {
            "image_size": 16,
            "test_tasks_per_dataset": TASKS,
            "query_images_per_class": 4,
            "sandbox": "none",
        }
        asked = IngestionSettings(
            input_data_dir=self.dataset, submission=bundle, output_dir=self.output, **{**defaults, **settings}
        )
        return run(asked, self.on_event, overwrite=overwrite)

    def texts(self, kind: str) -> str:
        return "\n".join(event.text for event in self.events if event.kind == kind)

    def truth(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.output / "truth.json").read_text())
        return content

    def accuracy(self, task: int) -> float:
        scores = np.loadtxt(self.output / f"task_{task}.predict", ndmin=2)
        labels = self.truth()["tasks"][task - 1]["labels"]
        if np.isnan(scores).any():
            return float("nan")
        return float((scores.argmax(1) == labels).mean())
