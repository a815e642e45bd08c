"""`autometa judge`: with runs that are made up, how it ends and what it prints; then real runs of small bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from synthetic import MakeBundle, write_meta_album

from autometa.cli.main import cli
from autometa.judging.executor import failed_row
from autometa.judging.ledger import Row
from autometa.judging.runs import RunPlayer
from autometa.judging.submissions import Unit

SMALL = [
    "--image-size", "16", "--tasks-per-dataset", "3", "--query-per-class", "2", "--ways", "2-3", "--shots", "1-2",
]  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_meta_album(tmp_path / "SET", [6] * 6, px=16)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that were done, which are made up: `prototypical` is good, `random` fails."""
    found: list[tuple[str, int]] = []

    def play(self: RunPlayer, unit: Unit) -> Row:
        found.append(unit.key)
        if unit.submission.name == "random":
            return failed_row(unit, "it is broken")
        row = failed_row(unit, "")
        return row.model_copy(
            update={"status": "ok", "accuracies": (0.5, 0.7), "drawn": "x", "exit_status": 0}
        )

    monkeypatch.setattr(RunPlayer, "play", play)
    return found


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["judge", *map(str, arguments)])


def test_a_judging_ends_with_a_table_and_its_files(tmp_path: Path, dataset: Path, done: Any) -> None:
    out = tmp_path / "out"
    result = call("prototypical", "random", "--dataset", dataset, "--seeds", 2, "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert "failed, counts as chance: random, seed 93: it is broken" in result.output
    table = [line.split()[:2] for line in result.output.splitlines() if " ± " in line]
    assert table[:2] == [["1", "prototypical"], ["2", "random"]]
    assert "it is broken" in (out / "judging.html").read_text()
    verdict = json.loads((out / "judging.json").read_text())
    assert [each["submission"] for each in verdict["standings"]] == ["prototypical", "random"]
    both = ["prototypical", "random", "--dataset", dataset, "-o", out, "--resume", *SMALL]
    again = call(*both, "--seeds", 3, "--json")
    assert json.loads(again.stdout)["seeds"] == [93, 94, 95] and "4 of them done before" in again.stderr
    assert len(done) == 6
    quiet = call(*both, "-q")
    assert quiet.output.startswith("rank") and len(done) == 6


def test_the_exit_status_is_1_where_nothing_was_scored(tmp_path: Path, dataset: Path, done: Any) -> None:
    result = call("random", "--dataset", dataset, "--seeds", 1, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 1 and "random, seed 93: failed" in result.output


def test_the_exit_status_is_130_where_somebody_ends_it(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunPlayer, "play", lambda *_: None)
    result = call("random", "--dataset", dataset, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 130 and result.stderr.strip().splitlines()[-1] == "Error: interrupted"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument 'SUBMISSIONS...'"),
        (["nobody"], "SUBMISSIONS nobody: no such file or folder"),
        (["random", "random"], "another one called random"),
        (["random", "--dataset", "/nowhere"], "--dataset /nowhere: there is no such file"),
        (["random", "--seeds", "0"], "seeds = '0'"),
        (["random", "--retry-failed"], "add resume"),
        (["random", "--time-budget", "1s"], "time_budget = 1.0"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], told: str, done: Any) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and told in result.output and "Traceback" not in result.output
    assert not done


def test_a_dataset_that_cannot_be_used_is_told_before_any_run(tmp_path: Path, done: Any) -> None:
    (tmp_path / "EMPTY").mkdir()
    result = call("random", "--dataset", tmp_path / "EMPTY", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "EMPTY" in result.output and not done


def test_an_earlier_judging_with_other_options_is_not_mixed(tmp_path: Path, dataset: Path, done: Any) -> None:
    out = tmp_path / "out"
    assert call("prototypical", "--dataset", dataset, "-o", out, *SMALL).exit_code == 0
    for more, told in (
        (["--time-budget", "5m", "--resume"], "time-budget 2m, not 5m"),
        ([], "add --resume or"),
    ):
        result = call("prototypical", "--dataset", dataset, "-o", out, *SMALL, *more)
        assert result.exit_code == 2 and told in result.output
    assert call("prototypical", "--dataset", dataset, "-o", out, *SMALL, "--overwrite").exit_code == 0
    assert len(done) == 6


@pytest.mark.medium
def test_real_runs_of_a_good_and_a_broken_bundle(
    tmp_path: Path, dataset: Path, make_bundle: MakeBundle
) -> None:
    good = make_bundle(name="good")
    broken = make_bundle(name="broken", meta_fit="raise ValueError('on purpose')")
    out = tmp_path / "out"
    limits = ["--seeds", 1, "--time-budget", "60s", "--sandbox", "none"]
    result = call(good, broken, "--dataset", dataset, "-o", out, *limits, *SMALL)
    assert result.exit_code == 0, result.output
    first, second = json.loads((out / "judging.json").read_text())["standings"]
    assert first["submission"] == "good" and first["accuracy"] > 20 and not first["failed"]
    assert "on purpose" in second["failed"][0]["reason"] and second["unanswered"] == 3
    assert (out / "runs" / "good" / "93" / "scoring" / "report.html").exists()
    assert 'href="runs/good/93/scoring/report.html"' in (out / "judging.html").read_text()
