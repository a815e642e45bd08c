"""The rows of the benchmark of reproductions."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from autometa.core.files import write_model
from autometa.papers.recipes import Achieved, Published
from autometa.papers.result import Result

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

reproduce: Any = importlib.import_module("reproduce")


def result(accuracy: float, seed: int = 0, *, shortened: bool = False, recipe: str = "a/b") -> Result:
    return Result(
        recipe=recipe, paper="x", table="y", data="classes", images=1, classes=(1, 1, 1), seed=seed, steps=1, tasks=2,
        shortened=shortened, published=Published(accuracy=80), untrained=20, validation=50, ended="",
        achieved=Achieved(accuracy=accuracy, interval=1), training_s=1, device="cpu", version="0",
    )  # fmt: skip


def test_a_row_is_the_mean_of_seeds_against_the_published_figure() -> None:
    (row,) = reproduce.rows_of([result(70), result(90, 1), result(10, 2, shortened=True)])
    assert (row["name"], row["value"], row["unit"], row["reference"], row["ratio"]) == (
        "reproduce/a/b",
        80,
        "%",
        80,
        1,
    )
    assert row["seeds"] == [70, 90]


def test_what_was_shortened_is_compared_with_nothing() -> None:
    (row,) = reproduce.rows_of([result(70, shortened=True)])
    assert row["value"] == 70 and row["reference"] is None and row["ratio"] is None


def test_results_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_model(tmp_path / name / "result.json", result(70, recipe=name))
    assert [found.recipe for found in reproduce.find_results([tmp_path])] == ["one", "two"]
    with pytest.raises(SystemExit, match=r"no result.json in it; name the output"):
        reproduce.find_results([tmp_path / "one" / "nothing"])
