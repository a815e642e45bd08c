"""Runs of hostile submissions, and what is asked of each: nothing got out, nothing is left, the rest is scored."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from ingestion_runs import Runner
from synthetic import write_bundle

from ingestion.result import IngestionResult

Sandbox = Literal["bubblewrap", "landlock"]
ATTACKS = Path(__file__).parent / "attacks"
USUAL = {
    "TOP": "",
    "META_FIT": "return MyLearner()",
    "FIT": "return MyPredictor(support_set)",
    "PREDICT": "return self.nearest(query_set)",
}
COUNT = """
COUNTER = Path(os.environ["METADL_MODEL_DIR"]) / "count"

def task_number():
    number = int(COUNTER.read_text()) + 1 if COUNTER.exists() else 1
    COUNTER.write_text(str(number))
    return number
"""
"""For `TOP`: `task_number()` counts tasks from 1, in whatever process."""


class Hostile:
    """A run in `folder` of a submission, with the modules of attacks beside it."""

    def __init__(self, dataset: Path, folder: Path, sandbox: Sandbox | Literal["none"]) -> None:
        self.folder, self.sandbox = folder, sandbox
        self.runner = Runner(dataset, folder / "out")
        self.result: IngestionResult

    @property
    def output(self) -> Path:
        return self.runner.output

    def run(self, given: Mapping[str, Any], parts: Mapping[str, str], **settings: Any) -> IngestionResult:
        """The result. `given`: what the attacks know; `parts`: the code of the submission. AssertionError where a
        process of the run outlives it."""
        bundle = write_bundle(self.folder / "bundle", {**USUAL, **parts})
        for module in ATTACKS.glob("*.py"):
            shutil.copy(module, bundle)
        (bundle / "given.json").write_text(json.dumps(dict(given)))
        before = set(psutil.pids())
        self.result = self.runner(bundle, sandbox=self.sandbox, **settings)
        assert not self.survivors(before), "processes outlive the run"
        return self.result

    def survivors(self, before: set[int]) -> list[str]:
        """Processes that came during the run and have a place of it in their environment or command."""
        found = []
        for process in psutil.process_iter():
            if process.pid in before:
                continue
            with contextlib.suppress(psutil.Error):  # it has ended
                command = process.cmdline()
                told = [*process.environ().values(), *command]
                is_over = process.status() == psutil.STATUS_ZOMBIE
                if not is_over and any(str(self.folder) in value for value in told):
                    found.append(f"{process.pid} {command[:3]}")
        return found

    def rows(self) -> dict[str, dict[str, str]]:
        """What each attack reported, by its name."""
        lines = (self.output / "submission.log").read_text(errors="replace").splitlines()
        rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
        return {row["attack"]: row for row in rows}

    def predictions(self) -> list[list[float]]:
        """The answers to each task, as they lie on disk."""
        files = sorted(self.output.glob("task_*.predict"), key=lambda file: int(file.stem[5:]))
        return [np.loadtxt(file).tolist() for file in files]

    def failures(self) -> dict[int, str]:
        """The reasons in the record of the run; AssertionError where one is more than a line."""
        record = json.loads((self.output / "ingestion.json").read_text())
        told = {int(task): reason for task, reason in record["failures"].items()}
        assert told == self.result.failures
        assert all(reason and reason.isprintable() for reason in told.values()), told
        return told
