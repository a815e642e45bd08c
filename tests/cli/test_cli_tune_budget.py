"""`autometa tune-budget` without runs: the plan, the table, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autometa.cli.main import cli
from autometa.cli.tune_budget import NOTHING_FITS
from autometa.core.errors import ConfigError
from autometa.planning.serving_limits import VARIABLES
from autometa.tuning import elsewhere
from autometa.tuning import runner as runner_module
from autometa.tuning.budget_file import Budget
from autometa.tuning.grid import Place
from autometa.tuning.point import Point
from autometa.tuning.profiles import REFERENCE, Profile, read_profile
from ingestion import IngestionResult, IngestionSettings

GRID = ["--time-budget", "30s,60s", "--memory-budget", "4GB", "--threads", "1"]


def call(dataset: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["tune-budget", str(dataset / "photos"), *GRID, *arguments])


@pytest.fixture(autouse=True)
def dataset(tmp_path: Path) -> None:
    """A folder that looks like a dataset; its images are never read."""
    for name in ("one", "two", "three", "four"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "photos" / name / f"{number}.png").write_text(f"{name} {number}")


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
    assert "run alone: 70.0 %, 15.0 s" in result.output and "did not keep" not in result.output
    assert (tmp_path / "out" / "budget.html").exists()
    again = call(tmp_path, "-o", str(tmp_path / "out"), "--resume", "--json")
    assert len(json.loads(again.stdout)["points"]) == 2 and "done before" in again.stderr


def test_the_exit_status_is_3_where_nothing_fits(tmp_path: Path, fits: set[float]) -> None:
    fits.clear()
    result = call(tmp_path, "-o", str(tmp_path / "out"))
    assert result.exit_code == NOTHING_FITS == 3
    assert "Does not fit: 1m, 4GB, 1 thread: took too long." in result.output


def test_the_exit_status_is_1_where_points_failed(
    tmp_path: Path, fits: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits.clear()
    run = runner_module.Runner.run

    def fail(self: Any, place: Place, folder: Path, *, shares: bool = True) -> Point:
        point = run(self, place, folder, shares=shares)
        own = {"status": "failed", "reason": "RuntimeError: why"}
        return point.model_copy(update=own if place.time_budget_s == 60 else {})

    monkeypatch.setattr(runner_module.Runner, "run", fail)
    result = call(tmp_path, "-o", str(tmp_path / "out"))
    assert result.exit_code == 1
    told = " ".join(result.output.split())
    assert "Failed: 1m, 4GB, 1 thread: RuntimeError: why; --resume tries it again." in told
    assert "Does not fit: 30s, 4GB, 1 thread: took too long." in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--submission", "nonsense"], "--submission nonsense: no such file or folder"),
        (["--threads", "none"], "`none` is no number of threads; write 1, 2 or 4"),
        (["--within", "5s"], "--within 5s: with it all points would take about"),
        (["--resume"], "set output to the folder of the grid to go on with"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    result = call(tmp_path, *arguments)
    assert result.exit_code == 2 and told in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_grid_stays_where_a_new_one_cannot_begin(tmp_path: Path, fits: set[float]) -> None:
    out = tmp_path / "out"
    assert call(tmp_path, "-o", str(out)).exit_code == 0
    empty = tmp_path / "empty" / "photos"
    empty.mkdir(parents=True)
    result = call(empty.parent, "-o", str(out), "--overwrite")
    assert result.exit_code == 2 and f"dataset folder {empty}: holds neither" in result.output
    assert (out / "budget.json").exists()
    assert call(tmp_path, "-o", str(out), "--overwrite").exit_code == 0


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    result = call(tmp_path / "nothing")
    assert result.exit_code == 2 and "there is no such file or folder" in result.output
    result = CliRunner().invoke(cli, ["tune-budget", *GRID])
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "DATASET: none is named; name a folder" in result.output


def test_limits_reach_the_runs_and_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str | None]] = []

    def run(settings: IngestionSettings, on_event: object) -> IngestionResult:
        seen.append({name: os.environ.get(name) for name in VARIABLES.values()})
        raise ConfigError("seen")

    monkeypatch.setattr(runner_module, "run_ingestion", run)
    monkeypatch.setenv("AUTOMETA_ADAPT_LIMIT", "of the user")
    result = call(tmp_path, "-o", str(tmp_path / "out"), "--infer-limit", "30ms", "--max-model-size", "50MB")
    assert result.exit_code == 2 and "seen" in result.output
    assert list(seen[0].values()) == ["30ms", None, "50000000"]
    left = [os.environ.get(name) for name in VARIABLES.values()]
    assert left == [None, "of the user", None]


def test_other_submissions_hear_once_that_limits_have_no_effect(tmp_path: Path, fits: set[float]) -> None:
    result = call(
        tmp_path, "-o", str(tmp_path / "out"), "--infer-limit", "30ms", "--submission", "autometa,random"
    )
    told = " ".join(result.output.split())
    assert told.count("no effect on random, which does not use autometa's search") == 1
    assert "no effect on autometa" not in told


def test_other_machines_are_predicted_after_the_grid(
    tmp_path: Path, fits: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, str | None]] = []

    def measure(name: str, threads: int, device: str | None) -> Profile:
        asked.append((name, threads, device))
        return REFERENCE

    monkeypatch.setattr(elsewhere, "measure_here", measure)
    out = tmp_path / "out"
    result = call(tmp_path, "-o", str(out), "--profile", "reference,pi5", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert asked == [("here", 1, "cpu")]
    assert (
        "prediction for pi5 (a Raspberry Pi 5" in result.output and "70.0 ± 1.0 % predicted" in result.output
    )
    budget = Budget.model_validate_json((out / "budget.json").read_text("utf-8"))
    assert [each.profile.name for each in budget.predicted] == ["reference", "pi5"]
    assert "prediction for pi5" in (out / "budget.html").read_text("utf-8")

    def fail(name: str, threads: int, device: str | None) -> Profile:
        raise ConfigError("this machine: not measured (why)")

    monkeypatch.setattr(elsewhere, "measure_here", fail)
    again = call(tmp_path, "-o", str(out), "--resume", "--profile", "pi5", "--device", "cpu")
    assert again.exit_code == 0 and "not measured (why)" in again.output
    result = call(tmp_path, "--profile", "pi6")
    assert result.exit_code == 2 and "--profile pi6: is neither a file nor one of t4" in result.output


def test_a_profile_is_written_without_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        elsewhere, "measure_here", lambda name, threads, device: REFERENCE.model_copy(update={"name": name})
    )
    file = tmp_path / "mine.yaml"
    arguments = ["tune-budget", "--measure-profile", str(file)]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.output) == (0, f"profile of this machine: {file}\n")
    assert read_profile(str(file)) == REFERENCE.model_copy(update={"name": "mine"})
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 2 and "exists; name another file" in again.output
    result = CliRunner().invoke(cli, ["tune-budget", "--measure-profile", str(tmp_path / "no" / "m.yaml")])
    assert result.exit_code == 2 and "there is no such folder" in result.output
