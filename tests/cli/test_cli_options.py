"""Options are declared once, in the model: help, command line, YAML and Python agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel, ByteSize, ConfigDict

from autometa.cli.main import cli
from autometa.cli.options import (
    config_option,
    describe_default,
    merge_options,
    model_options,
    read_size,
)
from autometa.core.options import RunOptions
from autometa.core.settings import Settings, option, validate_settings
from autometa.core.units import (
    Duration,
    Range,
    parse_duration,
    show_bytes,
    show_duration,
    show_range,
    show_value,
)

GIVEN = {
    "dataset": "photos",
    "submission": "random",
    "time_budget": "90s",
    "memory_budget": "4GB",
    "gpu_memory_budget": "2GiB",
    "backbones": "resnet18,resnet34",
    "download": "never",
    "download_limit": "500MB",
    "tasks_per_dataset": "7",
    "query_per_class": "5",
    "ways": "2-7",
    "shots": "3",
    "image_size": "160",
    "seed": "11",
    "protocol": "cross-domain",
    "sandbox": "none",
    "output": "there",
    "overwrite": "true",
}


class Example(BaseModel):
    """Of all kinds of options."""

    model_config = ConfigDict(extra="forbid")

    budget: Duration = option(90.0, "How long.", metavar="TIME")
    sizes: Range = option((2, 5), "How many.", metavar="LOW-HIGH")
    limit: ByteSize | None = option(None, "How large.", metavar="SIZE", unset="as large as can be")
    mode: Literal["one", "two"] = option("one", "Which.", unset="the usual one")
    folder: Path | None = option(None, "Where.", metavar="DIR")
    several: tuple[str, ...] = option(("a", "b"), "Names.", metavar="NAME,...")
    fast: bool = option(True, "Be fast.")
    loud: bool = option(False, "Be loud.")


@click.command()
@model_options(Example, without={"several"})
@config_option
def example(config: Path | None, **given: Any) -> None:
    click.echo(repr(merge_options(Example, config, given)))


def test_the_help_says_what_the_model_says() -> None:
    shown = " ".join(CliRunner().invoke(example, ["--help"]).stdout.split())
    for part in (
        "--budget TIME How long. Default: 90s.",
        "--sizes LOW-HIGH How many. Default: 2-5.",
        "--limit SIZE How large. Default: as large as can be.",
        "--mode one|two Which. Default: one, the usual one.",
        "--folder DIR Where. --",
        "--fast / --no-fast Be fast.",
        "--loud Be loud.",
    ):
        assert part in shown
    assert "--several" not in shown
    assert describe_default(Example.model_fields["several"]) == "a, b"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Example()),
        (["--budget", "2h", "--sizes", "4"], Example(budget=7200.0, sizes=(4, 4))),
        (["--no-fast", "--loud"], Example(fast=False, loud=True)),
        (["--limit", "3GB", "--mode", "two"], Example(limit=ByteSize(3 * 10**9), mode="two")),
    ],
)
def test_the_command_line_makes_the_model(arguments: list[str], expected: Example) -> None:
    shown = CliRunner().invoke(example, arguments)
    assert shown.stdout.strip() == repr(expected), shown.output


def test_every_option_of_a_run_is_in_its_help_with_its_default() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["run", "--help"]).stdout.split())
    for name, field in RunOptions.model_fields.items():
        default = describe_default(field)
        text = f"{field.description} Default: {default}." if default else str(field.description)
        assert f"--{name.replace('_', '-')} " in shown
        assert text in shown


def test_yaml_command_line_and_python_give_the_same(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("".join(f"{name.replace('_', '-')}: {value}\n" for name, value in GIVEN.items()))
    words = [word for name, value in GIVEN.items() for word in (f"--{name.replace('_', '-')}", value)]
    words.remove("true")  # of --overwrite
    shown = [
        json.loads(CliRunner().invoke(cli, ["config", "show", "--json", *arguments]).stdout)
        for arguments in (words, ["--config", str(file)])
    ]
    by_line, by_file = ({name: row["value"] for name, row in each.items()} for each in shown)
    assert by_line == by_file
    from_python = validate_settings(RunOptions, dict(GIVEN), "options")
    assert by_line == {
        name: show_value(field, getattr(from_python, name)) for name, field in RunOptions.model_fields.items()
    }
    assert {row["origin"] for name, row in shown[0].items() if name in GIVEN} == {"command line"}
    assert {row["origin"] for name, row in shown[1].items() if name in GIVEN} == {str(file)}
    assert shown[0]["preset"] == {"value": None, "origin": "default"}


@pytest.mark.parametrize(
    "arguments",
    [[], ["--time-budget", "90s", "--ways", "5", "--memory-budget", "3GiB", "--output", "a: b #c"]],
)
def test_what_config_show_prints_can_be_given_back(arguments: list[str], tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["config", "show", *arguments])
    assert shown.exit_code == 0, shown.output
    file = tmp_path / "run.yaml"
    file.write_text(shown.stdout)
    assert list(yaml.safe_load(shown.stdout)) == list(RunOptions.model_fields)
    again = CliRunner().invoke(cli, ["config", "show", "--config", str(file)])
    assert [line.partition(" #")[0] for line in again.stdout.splitlines()] == [
        line.partition(" #")[0] for line in shown.stdout.splitlines()
    ]
    assert "# default: 80 % of the free memory" in CliRunner().invoke(cli, ["config", "show"]).stdout


def test_config_show_refuses_what_a_run_refuses(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("tme-budget: 1m\n")
    shown = CliRunner().invoke(cli, ["config", "show", "--config", str(file)])
    assert shown.exit_code == 2
    assert shown.stderr == f"Error: {file}: unknown key `tme_budget`; did you mean `time_budget`?\n"
    shown = CliRunner().invoke(cli, ["config", "show", "--time-budget", "soon"])
    assert (
        shown.exit_code == 2
        and "write 30ms, 90s, 10m or 2h" in shown.stderr
        and shown.stderr.count("\n") == 1
    )


def test_values_are_written_as_they_are_read() -> None:
    for seconds in (0.03, 0.0055, 0.5, 20.0, 90.0, 120.0, 5400.0, 7200.0, 45.25):
        assert parse_duration(show_duration(seconds)) == seconds
    assert (show_duration(90), show_duration(120), show_duration(7200)) == ("90s", "2m", "2h")
    assert (show_duration(0.03), show_duration(1), show_duration(0)) == ("30ms", "1s", "0s")
    assert (show_range((2, 20)), show_range((5, 5))) == ("2-20", "5")
    assert [show_bytes(n) for n in (4 * 10**9, 2**30, 5 * 10**6, 2**20, 1)] == [
        "4GB",
        "1GiB",
        "5MB",
        "1MiB",
        "1B",
    ]
    for size in (0, 1, 1234, 10**6, 2**29, 3 * 10**9):
        assert read_size(click.Context(cli), click.Option(["--limit"]), show_bytes(size)) == size
    field = Settings.model_fields["resolutions"]
    assert show_value(field, (96, 128)) == [96, 128]
