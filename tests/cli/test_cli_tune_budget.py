"""`autometa tune-budget` without runs: the plan, the table, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autometa.cli.main import cli
from autometa.cli.tune_budget import NOTHING_FITS
from autometa.tuning import runner as runner_module
from autometa.tuning.grid import Place
from autometa.tuning.point import Point

GRID = ["--time-budget", "30s,60s", "--memory-budget", "4GB", "--threads", "1"]


def call(dataset: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["tune-budget", str(dataset), *GRID, *arguments])


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> set[float]:
    """The time budgets that fit, of runs that are made up."""
    found = {30.0, 60.0}

    def run(self: Any, place: Place, folder: Path, *, shares: bool = True) -> Point:
        own = place.model_dump()
        if place.time_budget_s not in found:
            return Point(**own, status="does_not_fit", reason="took too long")
        total_s = place.time_budget_s / 2
        return Point(
            **own,
            score=70.0,
            ci95=1.0,
            score_per_task=[60.0, 80.0],
            seconds={"total": total_s},
            peak_bytes=10**9,
        )

    monkeypatch.setattr(runner_module.Runner, "run", run)
    return found


def test_a_dry_run_prints_the_plan_and_leaves_nothing(tmp_path: Path) -> None:
    result = call(tmp_path, "--dry-run", "-o", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "1m, 4GB, 1 thread: about 60 s",
        "30s, 4GB, 1 thread: about 26 s",
        "what is recommended, run again alone: up to 1m",
        "2 points, about 2 min together",
    ]
    assert not (tmp_path / "out").exists()
    plan = json.loads(call(tmp_path, "--dry-run", "--json", "--within", "100s").stdout)
    assert [place["time_budget_s"] for place in plan["places"]] == [30.0]
    assert plan["left_out"][0]["reason"].startswith("with it all points would take about")


def test_a_grid_ends_with_a_table_and_what_to_set(tmp_path: Path, fits: set[float]) -> None:
    result = call(tmp_path, "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert (
        "recommended: 30s, 4GB, 1 thread: the smallest budget that is no more than 0.5 points worse"
        in result.output
    )
    assert (tmp_path / "out" / "budget.html").exists()
    again = call(tmp_path, "-o", str(tmp_path / "out"), "--resume", "--json")
    assert len(json.loads(again.stdout)["points"]) == 2 and "done before" in again.stderr


def test_the_exit_status_is_3_where_nothing_fits(tmp_path: Path, fits: set[float]) -> None:
    fits.clear()
    result = call(tmp_path, "-o", str(tmp_path / "out"))
    assert result.exit_code == NOTHING_FITS == 3
    assert "Does not fit: 1m, 4GB, 1 thread: took too long." in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--submission", "nonsense"], "--submission nonsense: no such file or folder"),
        (["--threads", "none"], "`none` is no number of threads; write 1, 2 or 4"),
        (["--resume"], "set output to the folder of the grid to go on with"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    result = call(tmp_path, *arguments)
    assert result.exit_code == 2 and told in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    result = call(tmp_path / "nothing")
    assert result.exit_code == 2 and "there is no such file or folder" in result.output
