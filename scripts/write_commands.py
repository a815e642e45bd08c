"""Make the page of commands, `docs/commands.md`, from the help of the program.

    python scripts/write_commands.py [--check]

`--check` writes nothing; exit status 1 if the page is not what would be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from autometa.cli.main import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEAD = """# Commands

<!-- made by scripts/write_commands.py -->

`autometa COMMAND --help` says what stands here. `python -m autometa` is the same, and `python run_local.py` is
`autometa run`, from a checkout, where the dependencies are installed.

| Exit status | Meaning |
|---|---|
| 0 | done |
| 1 | the run failed, or a problem was found |
| 2 | bad arguments or bad input: one line on stderr says what, and the fix |
| 3 | of `tune-budget`: no budget that was tried fits |
| 130 | interrupted, before there were results |

What a command prints goes to stdout. With `--json` that is pure JSON, and everything else goes to stderr. Colour and
moving displays are for terminals only; `NO_COLOR` switches colour off. `-q` and `-v` can stand before the command,
too. Options of `autometa run` and of other long work can be in a YAML file, under the same names (`--config`).

While work goes on, a terminal shows the stage, the time left, the best score so far with its 95 % interval, the
number of trials and the memory of the submission. Elsewhere these come as plain lines, when something has changed and
every 30 s. The line of status that a submission prints for this is read in one form:
`status: search, 14 trials, best score 61.3 % (95 %: 59.2 to 63.4)`.
"""


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    wanted = page()
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != wanted:
        sys.exit(f"{PAGE.name} is not up to date; run: python scripts/write_commands.py")


def page() -> str:
    """The page as it should be."""
    return "\n".join([HEAD, *sections(cli, "autometa")])


def sections(group: click.Group, path: str) -> Iterator[str]:
    """A section for each command of a group, and of the groups in it."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield section(command, f"{path} {name}")
        if isinstance(command, click.Group):
            yield from sections(command, f"{path} {name}")


def section(command: click.Command, path: str) -> str:
    """What a command does, its options, and examples."""
    context = click.Context(command, info_name=path)
    options = [each for each in command.params if isinstance(each, click.Option)]
    records = [found for each in options if (found := each.get_help_record(context))]
    names = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    usage = " ".join([path, *names])
    rows = [f"| `{_cell(flags)}` | {_cell(text)} |" for flags, text in records]
    table = ["| Option | What it does |", "|---|---|", *rows, ""] if rows else []
    text = "\n".join(line.strip() for line in (command.help or "").strip().splitlines())
    shown = [line.strip() for line in (command.epilog or "").partition("Examples:\n")[2].splitlines()]
    code = ["```sh", *shown, "```", ""] if shown else []
    return "\n".join([f"## {path}", "", f"`{usage}`", "", text, "", *table, *code])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
