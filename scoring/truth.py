"""The ground truth: read from `truth.json`, or drawn again for the output of the original program.

The ingestion program of this project saves the labels in a file, so that scoring needs neither the images nor the
random numbers. The original program does not: for its output, the truth is drawn again by `python -m
ingestion.truth`, a separate process, since this package imports nothing of ingestion.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoring.errors import TruthError, UnreadableFileError
from scoring.files import read_bytes
from scoring.metrics import Labels

if TYPE_CHECKING:
    from scoring.truth_file import TruthFile

DRAW_TIMEOUT_S = 3600
_OUTPUT_CHARACTERS = 2000


@dataclass(frozen=True)
class TruthTask:
    """One test task: its number (from 1), where it was drawn from, and `labels` [n_query] in 0 … ways-1."""

    task: int
    dataset: str
    ways: int
    shots: int
    labels: Labels


@dataclass(frozen=True)
class Truth:
    """Every test task of a run, in the order of their numbers, and the seed that drew them."""

    seed: int | None
    tasks: tuple[TruthTask, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets that have tasks, in order of first appearance."""
        return tuple(dict.fromkeys(task.dataset for task in self.tasks))


def read_truth(path: Path, *, follow_link: bool = False) -> Truth:
    """Read and check a truth file; raises TruthError naming the file and the wrong field."""
    from scoring.truth_file import parse_truth  # noqa: PLC0415  (pydantic is slow to import)

    try:
        data = read_bytes(path, follow_link=follow_link)
    except FileNotFoundError:
        raise TruthError(f"{path}: there is no such file") from None
    except UnreadableFileError as error:
        raise TruthError(f"{path} {error}") from error
    return _freeze(parse_truth(data, path))


def _freeze(file: "TruthFile") -> Truth:
    tasks = (
        TruthTask(row.task, row.dataset, row.ways, row.shots, np.array(row.labels, dtype=np.int64))
        for row in file.tasks
    )
    return Truth(file.seed, tuple(sorted(tasks, key=lambda task: task.task)))


def draw_truth(input_data_dir: Path, seed: int, tasks_per_dataset: int) -> Truth:
    """Draw the test tasks again from the data, by the ingestion package in a separate process.

    Raises TruthError, with the output of the process, if the module is missing, fails or takes over an hour.
    """
    if not input_data_dir.is_dir():
        raise TruthError(f"--input_data_dir: {input_data_dir} is not a folder")
    with tempfile.TemporaryDirectory(prefix="autometa-truth-") as scratch:
        output = Path(scratch) / "truth.json"
        command = [sys.executable, "-m", "ingestion.truth", f"--input_data_dir={input_data_dir.absolute()}"]
        command += [f"--seed={seed}", f"--test_tasks_per_dataset={tasks_per_dataset}", f"--output={output}"]
        _run(command)
        return read_truth(output)


def _run(command: list[str]) -> None:
    # The parent folder of this package also holds ingestion, installed or not.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=DRAW_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TruthError(
            f"drawing the truth again took over {DRAW_TIMEOUT_S} s: {' '.join(command)}"
        ) from None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode("utf-8", errors="replace").strip()
        raise TruthError(
            f"drawing the truth again failed with status {done.returncode}: {' '.join(command)}\n"
            f"{output[-_OUTPUT_CHARACTERS:] or '(it printed nothing)'}"
        )
