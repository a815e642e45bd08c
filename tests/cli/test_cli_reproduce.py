"""`autometa reproduce`, and `python -m autometa.learners reproduce`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from autometa.cli.main import cli
from autometa.learners.__main__ import main
from autometa.papers.recipes import list_names

RECIPE = {
    "paper": "Nobody 2000",
    "title": "Colours",
    "source": "none",
    "table": "Table 0",
    "published": {"accuracy": 90.0},
    "data": "classes",
    "test": {"ways": 2, "shots": 1, "queries": 1, "tasks": 4},
    "learning": {
        "learner": "prototypical",
        "encoder": {"network": "conv4", "px": 8, "channels": 4, "pools": 2},
        "ways": 2,
        "shots": 1,
        "queries_per_class": 1,
        "validation_episodes": 2,
        "training": {"max_steps": 4, "validate_every": 2, "meta_batch": 1},
    },
    "differs": ["nobody has written it"],
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments: a recipe and the data for it."""
    for number in range(6):
        folder = tmp_path / "data" / f"class{number}"
        folder.mkdir(parents=True)
        for copy in range(2):
            Image.new("RGB", (8, 8), (40 * number, 200 - 30 * number, copy)).save(folder / f"{copy}.png")
    names = [f"class{number}" for number in range(6)]
    split = {"meta-train": names[:2], "meta-valid": names[2:4], "meta-test": names[4:]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    (tmp_path / "colours.yaml").write_text(yaml.safe_dump(RECIPE))
    return [
        str(tmp_path / "colours.yaml"),
        "--data", str(tmp_path / "data"),
        "--split", str(tmp_path / "split.json"),
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("program", [cli, main], ids=["autometa", "python -m autometa.learners"])
def test_a_recipe_is_trained_tested_and_compared(program: object, files: list[str], tmp_path: Path) -> None:
    shown = CliRunner().invoke(program, ["reproduce", *files])  # type: ignore[arg-type]
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[0] == "published: 90.0 %  (Nobody 2000, Table 0)"
    assert "4 tasks, seed 0, 4 steps" in shown.stdout
    assert "differs from the paper: nobody has written it" in shown.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["recipe"] == "colours" and result["tasks"] == 4


@pytest.mark.medium
def test_steps_tasks_and_seed_are_those_that_are_asked_for(files: list[str]) -> None:
    asked = ["reproduce", *files, "--steps", "2", "--tasks", "3", "--seed", "5", "--json", "-q"]
    shown = CliRunner().invoke(cli, asked)
    assert shown.exit_code == 0 and shown.stderr == "", shown.output
    result = json.loads(shown.stdout)
    assert (result["steps"], result["tasks"], result["seed"], result["shortened"]) == (2, 3, 5, True)


@pytest.mark.medium
def test_the_list_has_every_recipe_with_its_figure() -> None:
    shown = CliRunner().invoke(cli, ["reproduce", "--list"])
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", *list_names()]
    (row,) = (line for line in lines if line.startswith("prototypical/mini-5way-1shot "))
    assert "49.42 ± 0.78 %" in row and "Snell et al. 2017" in row
    table = json.loads(CliRunner().invoke(cli, ["reproduce", "--list", "--json"]).stdout)
    assert table["maml/mini-5way-1shot"]["published"]["accuracy"] == 48.7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RECIPE and --data DIR are needed"),
        (["maml/mini-5way-1shot"], "RECIPE and --data DIR are needed"),
        (["maml/mini-5way-1shots", "--data", "."], "did you mean maml/mini-5way-1shot"),
        (["maml/mini-5way-1shot", "--data", "nowhere"], "--data nowhere: is no mini_imagenet"),
        (["maml/mini-5way-1shot", "--data", ".", "--tasks", "1"], "tasks"),
    ],
)
def test_bad_arguments_end_with_2_and_one_line(arguments: list[str], said: str) -> None:
    shown = CliRunner().invoke(cli, ["reproduce", *arguments])
    assert shown.exit_code == 2 and said in shown.stderr
    assert "Traceback" not in shown.output
