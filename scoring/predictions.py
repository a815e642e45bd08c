"""Reading `task_{i}.predict` files, which a submission wrote and which are not trusted.

A file holds text, one row per query image: either `ways` scores (probabilities or logits; the highest one is the
prediction, the lowest class wins ties), or one whole-numbered label. With any other content the task scores as
chance.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scoring.errors import PredictionError, UnreadableFileError
from scoring.files import MAX_FILE_BYTES, read_bytes
from scoring.metrics import Labels

Status = Literal["ok", "missing", "malformed"]

FILE_NAME = re.compile(r"task_([1-9][0-9]*)\.predict")
# Space for one value: "%.18e" takes 26 characters. The limit bounds the time to read a task by its size.
_BYTES_PER_VALUE = 64
_BYTES_SPARE = 4096


@dataclass(frozen=True)
class Prediction:
    """The content of a file: `labels` [n_query] with status "ok", else None and the reason; `scores` [n_query, ways]
    as they were written, None if the file holds labels or nothing usable."""

    labels: Labels | None
    status: Status
    reason: str | None
    scores: NDArray[np.float64] | None = None


def read_prediction(path: Path, n_query: int, ways: int) -> Prediction:
    """Read one prediction file; never raises, whatever the file holds.

    A file in which every value is NaN is how the ingestion program marks a task that was not done; it
    counts as missing.
    """
    max_bytes = min(MAX_FILE_BYTES, _BYTES_PER_VALUE * n_query * ways + _BYTES_SPARE)
    try:
        values = _parse(read_bytes(path, max_bytes))
        if values.size and np.isnan(values).all():
            return Prediction(None, "missing", "missing: not answered (marked so by the ingestion program)")
        labels = _to_labels(values, n_query, ways)
        return Prediction(labels, "ok", None, values if values.shape[1] > 1 else None)
    except FileNotFoundError:
        return Prediction(None, "missing", f"missing: there is no file {path.name}")
    except UnreadableFileError as error:
        return Prediction(None, "malformed", f"malformed: {path.name} {error}")
    except PredictionError as error:
        return Prediction(None, "malformed", f"malformed: {error}")


def stray_files(results_dir: Path, tasks: frozenset[int]) -> list[str]:
    """Return the sorted names of `.predict` files in `results_dir` that belong to no task."""
    names = (entry.name for entry in results_dir.iterdir() if ".predict" in entry.name)
    return sorted(name for name in names if not _belongs(name, tasks))


def _belongs(name: str, tasks: frozenset[int]) -> bool:
    match = FILE_NAME.fullmatch(name)
    return match is not None and len(match[1]) < 12 and int(match[1]) in tasks


def _parse(data: bytes) -> NDArray[np.float64]:
    """Parse text as a table [rows, columns] of float64, without support for pickles, comments or quotes."""
    if b"_" in data:  # Python reads 1_000 as a number; no other program does
        raise PredictionError("an underscore is no part of a number")
    rows: list[list[float]] = []
    for number, line in enumerate(data.splitlines(), start=1):
        tokens = line.split()
        if tokens:
            rows.append([_to_float(token, number) for token in tokens])
            if len(rows[-1]) != len(rows[0]):
                raise PredictionError(
                    f"line {number} has {len(rows[-1])} values, the lines before it {len(rows[0])}"
                )
    if not rows:
        raise PredictionError("the file is empty")
    return np.array(rows, dtype=np.float64)


def _to_float(token: bytes, line: int) -> float:
    try:
        return float(token)
    except ValueError:
        shown = ascii(token[:24].decode("ascii", errors="replace"))
        raise PredictionError(f"line {line}: {shown} is not a number") from None


def _to_labels(values: NDArray[np.float64], n_query: int, ways: int) -> Labels:
    rows, columns = values.shape
    if rows != n_query:
        raise PredictionError(f"{rows} rows for {n_query} query images")
    if columns == 1:
        return _check_labels(values[:, 0], ways)
    if columns != ways:
        raise PredictionError(
            f"{columns} columns for {ways} classes (one column of labels is the other choice)"
        )
    bad = np.flatnonzero(~np.isfinite(values.max(axis=1)))  # the maximum of a row with NaN is NaN
    if bad.size:
        raise PredictionError(
            f"row {bad[0] + 1} has no highest score (NaN, +inf, or all -inf; {bad.size} such rows)"
        )
    return np.asarray(values.argmax(axis=1), dtype=np.int64)


def _check_labels(values: NDArray[np.float64], ways: int) -> Labels:
    wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))
    if wrong.size:
        raise PredictionError(f"row {wrong[0] + 1}: label {values[wrong[0]]:g} is not a whole number")
    wrong = np.flatnonzero((values < 0) | (values >= ways))
    if wrong.size:
        raise PredictionError(f"row {wrong[0] + 1}: label {values[wrong[0]]:g} is not in 0 … {ways - 1}")
    return values.astype(np.int64)
