"""Settings of one ingestion run, and the events that it reports."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingestion.preparation import Shape
from ingestion.sandbox import SandboxChoice
from ingestion.splits import Protocol
from ingestion.tasks import TaskConfig
from ingestion.terminal import go_on_silently

ImageSize = Annotated[int, Field(ge=8, le=1024)] | Literal["auto"]
"""Pixels, or `auto`: 128 for a MetaDL root, else what the images have, from 128 to 256."""
ImageShape = Shape | Literal["auto"]
"""How images become square; `auto`: they are squeezed, and a note tells where that may not be best."""


class IngestionSettings(BaseModel):
    """Everything that determines a run. Times in seconds; `query_images_per_class` None: chosen from the data
    (a MetaDL root always has 20). `class_split`: a file with the classes of each part (`read_class_split`), None:
    they are drawn, or the folder says. `model_dir` None: the learner lies in the output folder. `predictions_only`:
    what lies there may be shown to participants, so it gets neither the learner nor the truth. `started`: when the
    time budget started, on `time.monotonic()`. `isolate_tasks`: a process for each task of meta-test, with nothing of
    the one before. `shared_dir`: a further folder that the submission may write to, in
    common with other runs of it; for submissions that are trusted."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    input_data_dir: Path
    submission: Path
    output_dir: Path
    class_split: Path | None = None
    seed: int = Field(default=93, ge=0, le=2**32 - 1)
    image_size: ImageSize = 128
    image_shape: ImageShape = "squeeze"
    test_tasks_per_dataset: int = Field(default=100, ge=1)
    ways: tuple[int, int] = (2, 20)
    shots: tuple[int, int] = (1, 20)
    query_images_per_class: int | None = Field(default=20, ge=1)
    protocol: Protocol = "auto"
    sandbox: SandboxChoice = "auto"
    isolate_tasks: bool = False
    time_budget_s: float | None = Field(default=None, ge=5)
    max_time_s: float | None = Field(default=None, gt=0)
    memory_budget_bytes: int | None = Field(default=None, gt=0)
    gpu_memory_budget_bytes: int | None = Field(default=None, ge=2**29)
    cache_dir: Path | None = None
    model_dir: Path | None = None
    shared_dir: Path | None = None
    predictions_only: bool = False
    verbose: bool = True
    started: float = Field(default_factory=time.monotonic)

    @model_validator(mode="after")
    def _ranges(self) -> IngestionSettings:
        for name, (low, high), least in (("ways", self.ways, 2), ("shots", self.shots, 1)):
            if not least <= low <= high:
                raise ValueError(f"{name} = {low}-{high}: give a range LOW-HIGH with {least} <= LOW <= HIGH")
        return self

    @property
    def model_folder(self) -> Path:
        """Where the learner is saved."""
        return self.model_dir or self.output_dir / "model"

    @property
    def test_config(self) -> TaskConfig:
        """Ways, shots and queries of meta-test."""
        return TaskConfig(
            min_N=self.ways[0],
            max_N=self.ways[1],
            min_k=self.shots[0],
            max_k=self.shots[1],
            query_images_per_class=self.query_images_per_class or 20,
        )


@dataclass(frozen=True)
class Event:
    """Something to show. stage: a new stage of `total` steps (0: unknown); progress: `done` of `total`; line:
    printed by the submission; note, failure: one message."""

    kind: Literal["stage", "progress", "line", "note", "failure"]
    text: str = ""
    done: int = 0
    total: int = 0


OnEvent = Callable[[Event], None]


def print_event(event: Event) -> None:
    """Print one line per event, without progress."""
    if event.kind != "progress":
        mark = {"stage": "==", "line": "  |", "note": "--", "failure": "!!"}[event.kind]
        try:
            print(f"{mark} {event.text}", flush=True)
        except OSError:  # nobody reads it any more
            go_on_silently(sys.stdout)
