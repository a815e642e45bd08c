"""Writing the files of a run: predictions, metadata, truth and the log of what happened."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.cgroups import count_cores
from ingestion.disk import remove
from ingestion.errors import InputError, SubmissionError
from ingestion.splits import Part
from ingestion.tasks import TaskDraw

RECORD_FILE = "ingestion.json"
TRUTH_FILE = "truth.json"
LOG_FILE = "submission.log"
IDENTITY_FILE = "run.json"
RESERVE_FILE = ".reserve"
RESERVE_STEP_BYTES = 2**20
BLOCK_BYTES = 4096
OTHER_FILES_BYTES = 2**20
TRUTH_FORMAT = "autometa-truth-1"
OWN_FILES = (
    "task_*.predict", "logs", "model", "metadata_ingestion", IDENTITY_FILE, "stages.json", "choices.json",
    "samples.json", "memory.json",
    RECORD_FILE, TRUTH_FILE, LOG_FILE, RESERVE_FILE,
)  # fmt: skip
"""What a run leaves in its output folder."""
FIXED = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""What renaming a folder fails with that is a mount point, or whose parent may not be changed."""


def write_atomically(file: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` so that a kill leaves the old file or the new one, never half of it; with `durable`, a power cut
    too. OSError names the file where it cannot be written."""
    writing = file.with_name(f".{file.name}.{os.getpid()}")
    writing.unlink(missing_ok=True)
    try:
        with writing.open("x", encoding="utf-8", errors="backslashreplace") as stream:  # never through a link
            stream.write(text)
            if durable:
                stream.flush()
                _flush(stream.fileno())
        writing.replace(file)
        if durable:
            _flush_folder(file.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        with contextlib.suppress(OSError):
            writing.unlink(missing_ok=True)  # a half file would keep space that is short


def _flush(opened: int) -> None:
    """Wait until an open file or folder is on the disk; some file systems cannot tell."""
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def _flush_folder(folder: Path) -> None:
    try:
        opened = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written, but not read
        return
    try:
        _flush(opened)
    finally:
        os.close(opened)


def prepare_output_dir(folder: Path, model_dir: Path, *, overwrite: bool) -> None:
    """An empty output folder, and one for the learner. An earlier one is renamed with the time. With `overwrite` it
    is emptied, or InputError if it is not an ingestion output.

    One that cannot be renamed, such as the mount point of a platform, loses what an earlier run left there and keeps
    everything else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output folder {folder}: is a file; name a folder")
    if folder.exists() and any(folder.iterdir()):
        refuse_in_use(folder)
        if not overwrite:
            _set_aside(folder)
        elif _is_output(folder):
            remove(folder)  # of a mount point, its content only
        else:
            raise InputError(f"output folder {folder}: holds other files, so it is not emptied; name another")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    model_dir.mkdir(parents=True, exist_ok=True)


def _is_output(folder: Path) -> bool:
    """Whether an ingestion has left this, however early it was killed; empty folders are nobody's loss."""
    names = {entry.name for entry in folder.iterdir()}
    begun = {IDENTITY_FILE, "logs"} <= names
    return begun or bool(names & {RECORD_FILE, LOG_FILE}) or all(map(_is_real_folder, folder.rglob("*")))


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _set_aside(folder: Path) -> None:
    try:
        folder.rename(folder.with_name(f"{folder.name}_{time.strftime('%y-%m-%d-%H-%M-%S')}"))
    except OSError as error:
        if error.errno not in FIXED:
            raise
        for entry in [entry for pattern in OWN_FILES for entry in folder.glob(pattern)]:
            remove(entry)


def check_predictions(predictions: NDArray[Any] | None, draw: TaskDraw) -> NDArray[Any]:
    """The predictions of a task, scores [n, ways] or labels [n]; SubmissionError says what is wrong with their
    form."""
    n, ways = draw.query_labels.size, draw.ways
    if predictions is None or predictions.shape not in ((n, ways), (n,)):
        shape = None if predictions is None else list(predictions.shape)
        raise SubmissionError(f"predictions have shape {shape}; [{n}, {ways}] or [{n}] is needed")
    if np.isnan(predictions).any():
        raise SubmissionError("predictions hold NaN")
    if predictions.ndim == 1:
        if (
            predictions.min() <= -1 or predictions.max() >= ways
        ):  # before fractions are cut off: not all fit an int
            raise SubmissionError(f"predicted labels lie outside 0..{ways - 1}")
        return predictions.astype(np.int64)
    with np.errstate(over="ignore"):
        scores = predictions.astype(np.float64)  # as scoring reads them: wider numbers may become infinite
    if np.isposinf(scores).any() or np.isneginf(scores).all(axis=1).any():
        raise SubmissionError("predictions hold infinite scores")
    return scores


def write_predictions(folder: Path, task: int, predictions: NDArray[Any]) -> None:
    """`task_{i}.predict`: a row per query image, separated by spaces, as the original scoring reads it."""
    text = io.StringIO()
    np.savetxt(text, predictions, fmt="%d" if predictions.ndim == 1 else "%.9g")
    # after a power cut, the run that goes on answers all tasks again
    write_atomically(folder / f"task_{task}.predict", text.getvalue(), durable=False)


def write_missing(folder: Path, task: int, draw: TaskDraw) -> None:
    """Mark a task as not done: all NaN in the right shape, so that any scoring program counts it. On a disk that is
    full, there is no file, which ours counts alike."""
    with contextlib.suppress(OSError):
        write_predictions(folder, task, np.full((draw.query_labels.size, draw.ways), np.nan))


def refuse_in_use(folder: Path) -> None:
    """InputError if another run has claimed this output folder, and has not ended."""
    with contextlib.closing(_Claim(folder)):
        return


class _Claim:
    """An output folder is claimed as long as it is locked. On a file system without locks, nothing is known."""

    def __init__(self, folder: Path) -> None:
        self._opened = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise InputError(
                f"output folder {folder}: another run is using it; name another folder"
            ) from error
        except OSError:
            return

    def close(self) -> None:
        """Others may use the folder now."""
        os.close(self._opened)


class Reserve:
    """Space on disk for the files that are written at the end, so that a disk that fills up ends no run."""

    def __init__(self, file: Path, size_bytes: int) -> None:
        self._file = file
        with file.open("xb") as stream:
            for _ in range(0, size_bytes, RESERVE_STEP_BYTES):
                stream.write(bytes(RESERVE_STEP_BYTES))

    @classmethod
    @contextmanager
    def in_folder(cls, folder: Path, draws: Sequence[TaskDraw]) -> Iterator[Reserve]:
        """Enough to mark every task of `draws` as not done; the folder is claimed meanwhile. InputError if the disk
        has less, or another run uses the folder."""
        rows = [draw.query_labels.size for draw in draws]
        missing = sum(n * draw.ways * len("nan ") for n, draw in zip(rows, draws, strict=True))
        size = missing + sum(rows) * len("99, ") + BLOCK_BYTES * len(draws) + OTHER_FILES_BYTES
        file = folder / RESERVE_FILE
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(contextlib.closing(_Claim(folder)))
                reserve = cls(file, size)
            except OSError as error:
                file.unlink(missing_ok=True)
                raise InputError(
                    f"output folder {folder}: no room for the results, {size} bytes ({error.strerror}); "
                    "free space there"
                ) from error
            held.callback(reserve.release)
            yield reserve

    def release(self) -> None:
        """Give the space back."""
        self._file.unlink(missing_ok=True)


def write_truth(file: Path, parts: Sequence[Part], draws: Sequence[TaskDraw], seed: int) -> None:
    """Query labels of all tasks, for scoring. Written only after the last process of the submission has ended."""
    tasks = [
        {
            "task": number,
            "dataset": parts[draw.dataset].name,
            "ways": draw.ways,
            "shots": draw.shots,
            "labels": draw.query_labels.tolist(),
        }
        for number, draw in enumerate(draws, start=1)
    ]
    datasets = [part.name for part in parts]
    content = {"format": TRUTH_FORMAT, "seed": seed, "datasets": datasets, "tasks": tasks}
    write_atomically(file, json.dumps(content))


def write_metadata(folder: Path, seconds: dict[str, float], datasets: int, tasks_per_dataset: int) -> None:
    """`metadata_ingestion`, with the names of the format; `seconds` has total, meta_train and meta_test."""
    lines = (
        f"Total execution time: {seconds['total']}",
        f"Meta-train time: {seconds['meta_train']}",
        f"Meta-test time: {seconds['meta_test']}",
        f"Number of test datasets: {datasets}",
        f"Tasks per dataset: {tasks_per_dataset}",
    )
    write_atomically(folder / "metadata_ingestion", "\n".join(lines))


def machine_summary() -> dict[str, Any]:
    """The machine: Python, system, cores, GPUs."""
    summary: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": count_cores(),
        "gpus": "none",
    }
    if program := shutil.which("nvidia-smi"):
        query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=False)
            summary["gpus"] = ", ".join(done.stdout.strip().splitlines()) or "none"
        except (OSError, subprocess.TimeoutExpired):
            summary["gpus"] = "nvidia-smi does not answer"
    return summary


def write_environment(folder: Path, machine: dict[str, Any]) -> None:
    """`logs/environment.txt`: the machine and every installed package."""
    packages = sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions() if d.name})
    lines = [f"{name}: {value}" for name, value in machine.items()]
    write_atomically(folder / "logs" / "environment.txt", "\n".join([*lines, "", *packages, ""]))
