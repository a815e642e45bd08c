"""The command `autometa`: help, lazy imports, exit statuses, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import autometa
from autometa.cli.main import COMMANDS, LazyGroup, cli, summarise
from autometa.cli.program import Command, Group
from autometa.core.errors import ArtifactError, AutometaError, ConfigError
from ingestion.errors import IngestionError, InputError

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "timm", "numpy", "sklearn", "optuna", "matplotlib", "rich", "psutil"}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name)
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("given", "expected"), [({}, "0"), ({"GOMP_SPINCOUNT": "1000"}, "1000")])
def test_threads_that_wait_use_no_core_unless_the_user_says_so(
    given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    look = Command("look", callback=lambda: click.echo(os.environ["GOMP_SPINCOUNT"]))
    shown = CliRunner().invoke(Group("some", {"look": look}), ["look"])
    assert shown.stdout.strip() == expected


def test_every_help_has_a_summary_and_examples() -> None:
    for path in [(), *commands(cli)]:
        shown = CliRunner().invoke(cli, [*path, "--help"])
        assert shown.exit_code == 0, shown.output
        assert f"Examples:\n    autometa {' '.join(path)}".rstrip() in shown.stdout, path
        assert max(map(len, shown.stdout.splitlines())) <= 110


def test_the_list_of_commands_says_what_each_does_in_the_words_of_its_own_help() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["--help"]).stdout.split())
    for name, place in COMMANDS.items():
        line = summarise(place)
        assert line and line in shown, name
        assert line in " ".join(CliRunner().invoke(cli, [name, "--help"]).stdout.split())
    for status in ("0 done", "1 the run failed", "2 bad arguments", "130 interrupted"):
        assert status in shown


@pytest.mark.medium
def test_the_help_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys\nfrom autometa.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\ncli.main(['config', 'show'], standalone_mode=False)\n"
        f"print('imported:', sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "imported: []"
    assert "Examples:" in done.stdout


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "autometa", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["autometa", autometa.__version__]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "did you mean `run`?"),
        (["backbones", "lst"], "did you mean `list`?"),
        (["xyzzy"], "commands: run,"),
        (["--dataset", "photos"], "write: autometa run --dataset"),
        (["--colour"], "--colour"),
        (["run", "--tme-budget", "1m"], "--time-budget"),
        (["heads", "-q"], "-q"),
        (["-q", "-v", "doctor"], "give one of them"),
    ],
)
def test_bad_arguments_end_with_2_and_say_what_may_be_meant(arguments: list[str], said: str) -> None:
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 2
    assert said in shown.stderr and not shown.stdout


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("seed = -1:\n0 or more"), 2, "Error: seed = -1: 0 or more\n"),
        (ArtifactError("model: damaged"), 2, "Error: model: damaged\n"),
        (InputError("no such folder"), 2, "Error: no such folder\n"),
        (AutometaError("it broke"), 1, "Error: it broke\n"),
        (IngestionError("it broke"), 1, "Error: it broke\n"),
        (
            ModuleNotFoundError("no", name="torch"),
            1,
            "Error: the module `torch` is not installed; run: autometa doctor\n",
        ),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_status(error: BaseException, status: int, line: str) -> None:
    def fail() -> None:
        raise error

    command = Command("fail", callback=fail)
    for program, arguments in ((command, []), (Group("top", commands={"fail": command}), ["fail"])):
        shown = CliRunner().invoke(program, arguments)
        assert (shown.exit_code, shown.stderr, shown.stdout) == (status, line, "")


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    shown = CliRunner().invoke(Command("fail", callback=fail), [])
    assert isinstance(shown.exception, ZeroDivisionError)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell: str) -> None:
    shown = CliRunner().invoke(cli, ["completion", shell])
    assert shown.exit_code == 0
    assert f"_AUTOMETA_COMPLETE={shell}_complete" in shown.stdout


def complete(*words: str) -> list[str]:
    """What the shell would offer for the last word."""
    variables = {"_AUTOMETA_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["autometa", *words])}
    command = [sys.executable, "-c", "from autometa.cli.main import main; main()"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables | {"COMP_CWORD": str(len(words))},
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.medium
def test_commands_options_and_values_are_completed() -> None:
    assert complete("he") == ["heads"]
    assert "--time-budget" in complete("run", "--ti")
    assert complete("run", "--preset", "s") == ["small"]
    assert complete("run", "--submission", "protot") == ["prototypical"]


def test_a_group_without_a_table_row_has_no_command() -> None:
    assert LazyGroup("empty").get_command(click.Context(cli), "nothing") is None
    assert not summarise("autometa.cli.nothing:nothing")
