"""Good predictions are read; every kind of bad one costs its task, says why, and nothing more."""

import os
from pathlib import Path

import numpy as np
import pytest

from scoring.predictions import read_prediction, stray_files

GOOD = {
    "probabilities": ("0.1 0.9\n0.8 0.2\n0.3 0.7\n", [1, 0, 1]),
    "logits": ("-3 4\n1e3 -2.5\n-inf 0\n", [1, 0, 1]),
    "ties go to the lowest class": ("0.5 0.5\n0 0\n1 1\n", [0, 0, 0]),
    "labels": ("1\n0\n1\n", [1, 0, 1]),
    "labels as floats": ("1.000\n0.0\n1e0\n", [1, 0, 1]),
    "tabs, blank lines, other line ends": ("0.1\t0.9\r\n\r\n  0.8  0.2 \r\n0.3 0.7", [1, 0, 1]),
    "-inf beside a finite score": ("-inf 0\n0 -inf\n-inf -9\n", [1, 0, 1]),
}
BAD = {
    "too few rows": ("1\n0\n", "2 rows for 3 query images"),
    "too many rows": ("1\n0\n1\n1\n", "4 rows for 3"),
    "too many columns": ("1 2 3\n1 2 3\n1 2 3\n", "3 columns for 2 classes"),
    "ragged": ("0.1 0.9\n0.5\n0.1 0.9\n", "line 2 has 1 values"),
    "empty": ("", "empty"),
    "blank": ("\n \n", "empty"),
    "words": ("0.1 0.9\ncat dog\n0.1 0.9\n", "line 2: 'cat' is not a number"),
    "a pickle": (b"\x80\x04\x95\x1a\x00cos\nsystem\n", "not a number"),
    "an underscore": ("1_0 0\n1 0\n1 0\n", "underscore"),
    "a NaN": ("0.1 0.9\nnan 0.9\n0.1 0.9\n", "row 2 has no highest score"),
    "a NaN hidden by a higher score": ("0.1 0.9\n0.9 nan\n0.1 0.9\n", "row 2"),
    "+inf": ("0.1 0.9\n0.1 inf\n0.1 0.9\n", "row 2"),
    "all -inf": ("0.1 0.9\n-inf -inf\n0.1 0.9\n", "row 2"),
    "a label too high": ("1\n2\n1\n", "label 2 is not in 0 … 1"),
    "a label too low": ("1\n-1\n1\n", "label -1 is not in"),
    "half a label": ("1\n0.5\n1\n", "label 0.5 is not a whole number"),
    "a NaN label": ("1\nnan\n1\n", "label nan"),
    "an infinite label": ("1\ninf\n1\n", "label inf"),
    "a huge label": ("1\n1e300\n1\n", "label 1e+300 is not in"),
    "a huge file": (b"0.1 0.9\n" * 10_000, "larger than"),
}


@pytest.mark.parametrize(("content", "labels"), GOOD.values(), ids=GOOD)
def test_good_predictions(tmp_path: Path, content: str, labels: list[int]) -> None:
    (tmp_path / "task_1.predict").write_text(content)
    prediction = read_prediction(tmp_path / "task_1.predict", 3, 2)
    assert prediction.labels is not None
    assert prediction.labels.tolist() == labels
    assert (prediction.status, prediction.reason) == ("ok", None)


@pytest.mark.parametrize(("content", "why"), BAD.values(), ids=BAD)
def test_bad_predictions(tmp_path: Path, content: str | bytes, why: str) -> None:
    (tmp_path / "task_1.predict").write_bytes(content if isinstance(content, bytes) else content.encode())
    prediction = read_prediction(tmp_path / "task_1.predict", 3, 2)
    assert prediction.labels is None
    assert prediction.status == "malformed"
    assert why in (prediction.reason or "")


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_all_nan_means_not_answered(tmp_path: Path, columns: int) -> None:
    np.savetxt(tmp_path / "task_1.predict", np.full((3, columns), np.nan), fmt="%f")
    prediction = read_prediction(tmp_path / "task_1.predict", 3, 2)
    assert (prediction.labels, prediction.status) == (None, "missing")


def test_an_absent_file_is_missing(tmp_path: Path) -> None:
    prediction = read_prediction(tmp_path / "task_4.predict", 3, 2)
    assert (prediction.status, prediction.reason) == ("missing", "missing: there is no file task_4.predict")


def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("1\n0\n1\n")
    (tmp_path / "task_1.predict").symlink_to(tmp_path / "real")
    (tmp_path / "task_2.predict").mkdir()
    os.mkfifo(tmp_path / "task_3.predict")
    (tmp_path / "task_4.predict").symlink_to(tmp_path / "nowhere")
    read = [read_prediction(tmp_path / f"task_{i}.predict", 3, 2) for i in (1, 2, 3, 4)]
    assert [prediction.status for prediction in read] == ["malformed"] * 4
    assert "symbolic link" in (read[0].reason or "")
    assert "not a regular file" in (read[1].reason or "")
    assert "not a regular file" in (read[2].reason or "")


def test_stray_files(tmp_path: Path) -> None:
    for name in (
        "task_1.predict",
        "task_2.predict",
        "task_01.predict",
        "x.predict.bak",
        f"task_{'9' * 5000}"[:200],
    ):
        (tmp_path / name).touch()
    (tmp_path / ("task_" + "9" * 200 + ".predict")).touch()
    strays = stray_files(tmp_path, frozenset({1}))
    assert strays == sorted(
        ["task_2.predict", "task_01.predict", "x.predict.bak", "task_" + "9" * 200 + ".predict"]
    )
