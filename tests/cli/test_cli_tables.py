"""`autometa heads`, `learners` and `backbones`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from autometa.backbones import CATALOGUE, PRESETS
from autometa.cli.main import cli
from autometa.cli.tables import cited
from autometa.core.errors import WeightsError
from autometa.heads import HEADS
from autometa.learners.recipe import LEARNERS


def invoke(*arguments: str) -> str:
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_heads_are_the_table_with_their_papers() -> None:
    table = json.loads(invoke("heads", "--json"))
    assert list(table) == list(HEADS)
    assert table["tim"]["kind"] == "transductive" and table["tim"]["needs_balance"]
    assert table["ridge"] == {
        "kind": "inductive",
        "needs_balance": False,
        "parameters": {"strength": 0.5},
        "source": "Bertinetto et al. 2019",
        "summary": "Ridge regression onto one-hot labels, in its dual or primal form (R2-D2, Bertinetto et al. 2019)",
    }
    assert all(row["source"] and row["summary"] for row in table.values())
    lines = invoke("heads").splitlines()
    assert [line.split()[0] for line in lines] == ["name", *HEADS]


def test_learners_are_the_table_with_their_baselines_and_papers() -> None:
    table = json.loads(invoke("learners", "--json"))
    assert list(table) == list(LEARNERS)
    assert all(row["source"] and row["baseline"] == name for name, row in table.items())
    assert table["maml"]["family"] == "gradient" and table["maml"]["options"]["rate"] > 0
    lines = invoke("learners").splitlines()
    assert [line.split()[0] for line in lines] == ["name", *LEARNERS]


def test_papers_are_found_in_text() -> None:
    text = "As in Snell et al. 2017, with Brümmer & de Villiers 2010 (Ravi & Larochelle\n2017; Fort 2017) of 2018."
    assert cited(text) == [
        "Snell et al. 2017",
        "Brümmer & de Villiers 2010",
        "Ravi & Larochelle 2017",
        "Fort 2017",
    ]


def test_backbones_are_the_catalogue_with_where_weights_are() -> None:
    rows = {row["name"]: row for row in json.loads(invoke("backbones", "list", "--json"))}
    assert set(rows) == set(CATALOGUE)
    lite = rows["tf_efficientnet_lite0"]
    assert lite["weights_here"] and lite["weights"] == "installed"
    assert lite["parameters"] == 3_400_000 and lite["multiply_adds"] == 384_000_000
    assert lite["px"] == 224 and lite["patch_px"] == 1 and lite["licence"] == "Apache-2.0"
    assert lite["presets"] == [name for name, each in PRESETS.items() if "tf_efficientnet_lite0" in each]
    assert invoke("backbones") == invoke("backbones", "list")
    assert "tf_efficientnet_lite0" in invoke("backbones")


def test_fetching_takes_names_and_presets_and_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetch_named(names: list[str], report: Any, limit_bytes: float) -> list[WeightsError]:
        asked.append((names, limit_bytes))
        report("one: at hand")
        if "bad" in names:
            report("failed: bad")
        return [WeightsError("bad")] if "bad" in names else []

    monkeypatch.setattr("autometa.backbones.fetch.fetch_named", fetch_named)
    assert invoke("backbones", "fetch", "one", "--preset", "tiny", "--limit", "1GB") == "one: at hand\n"
    assert invoke("-q", "backbones", "fetch", "one") == ""
    failed = CliRunner().invoke(cli, ["backbones", "fetch", "bad"])
    assert failed.exit_code == 1 and failed.stderr == "failed: bad\n"
    assert asked == [(["one", "tiny"], 10**9), (["one"], 4 * 10**9), (["bad"], 4 * 10**9)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name backbones"),
        (["--preset", "huge"], "tiny, small, base, large"),
        (["one", "--limit", "much"], "write 500MB or 2GB"),
    ],
)
def test_bad_arguments_of_fetch_end_with_2(arguments: list[str], said: str) -> None:
    shown = CliRunner().invoke(cli, ["backbones", "fetch", *arguments])
    assert shown.exit_code == 2 and said in shown.stderr
