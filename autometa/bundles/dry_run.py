"""A short run of a bundle on the demo, with the programs of the challenge."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from autometa.bundles.shipped import DEMO
from ingestion import Event, IngestionSettings, InputError
from ingestion import run as run_ingestion
from scoring import ScoringSettings, score

TIME_BUDGET_S = 60.0
TASKS_PER_DATASET = 2
LINES_KEPT = 40


@dataclass(frozen=True)
class DryRun:
    """What came of it. `failures`: task → reason; `lines`: the last lines that the run showed; `score`: normalized
    accuracy, None where nothing was answered."""

    tasks: int
    failures: dict[int, str]
    lines: tuple[str, ...]
    score: float | None
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether every task was answered."""
        return not self.failures and self.score is not None


def dry_run(archive: Path, time_budget_s: float = TIME_BUDGET_S, dataset: Path = DEMO) -> DryRun:
    """Run the zip file on a few small tasks. What ingestion refuses is a failure too."""
    started, lines = time.monotonic(), list[str]()

    def keep(event: Event) -> None:
        if event.kind in ("line", "note", "failure"):
            lines.append(event.text)

    with tempfile.TemporaryDirectory(prefix="autometa-bundle-") as scratch:
        settings = IngestionSettings(
            input_data_dir=dataset,
            submission=archive,
            output_dir=Path(scratch) / "ingestion",
            test_tasks_per_dataset=TASKS_PER_DATASET,
            ways=(2, 5),
            shots=(1, 5),
            query_images_per_class=None,
            time_budget_s=time_budget_s,
            verbose=False,
        )
        try:
            result = run_ingestion(settings, keep)
        except InputError as problem:
            return DryRun(0, {1: str(problem)}, tuple(lines[-LINES_KEPT:]), None, time.monotonic() - started)
        found: float | None = None
        if result.succeeded:
            found = score(
                ScoringSettings(settings.output_dir, Path(scratch) / "scoring", debug_mode=0)
            ).overall.mean
    seconds = time.monotonic() - started
    return DryRun(result.tasks, dict(result.failures), tuple(lines[-LINES_KEPT:]), found, seconds)
