"""The command `autometa`: a table of subcommands, each imported when it is used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import autometa
from autometa.cli.options import CONTEXT, examples, level_options
from autometa.cli.program import Group

COMMANDS: dict[str, str] = {
    "run": "autometa.cli.run:run",
    "judge": "autometa.cli.judge:judge",
    "tune-budget": "autometa.cli.tune_budget:tune_budget",
    "fit": "autometa.cli.fit:fit",
    "classify": "autometa.cli.classify:classify",
    "bundle": "autometa.cli.bundle:bundle",
    "report": "autometa.cli.report:report",
    "backbones": "autometa.cli.backbones:backbones",
    "heads": "autometa.cli.tables:heads",
    "learners": "autometa.cli.tables:learners",
    "reproduce": "autometa.cli.reproduce:reproduce",
    "doctor": "autometa.cli.doctor:doctor",
    "config": "autometa.cli.config:config",
    "playground": "autometa.cli.playground:playground",
    "completion": "autometa.cli.completion:completion",
}
"""Name of a subcommand → the module and the attribute that it is."""


class LazyGroup(Group):
    """A group whose subcommands are in `COMMANDS`: help and completion read what they do from the source, so that
    only the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of subcommands in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summarise(place)) for name, place in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of subcommands, or options."""
        named = [name for name in COMMANDS if name.startswith(incomplete)]
        found = [CompletionItem(name, help=summarise(COMMANDS[name])) for name in named]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As for any group; an option of `run` leads there."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            command = self.get_command(ctx, "run")
            names = {name for each in command.params for name in each.opts} if command else set()
            if error.option_name in names:
                raise click.UsageError(
                    f"`{error.option_name}` is an option of `autometa run`; write: autometa run "
                    f"{error.option_name} ...",
                    ctx,
                ) from error
            raise


def summarise(place: str) -> str:
    """The first line of the docstring of a command at `module:attribute`, without importing it."""
    module, _, attribute = place.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == attribute]
    text = (ast.get_docstring(functions[0]) if functions else "") or ""
    return text.partition("\n")[0].rstrip(".")


@click.group(
    cls=LazyGroup,
    context_settings=CONTEXT,
    epilog="\b\nExit status: 0 done; 1 the run failed or a problem was found; 2 bad arguments or bad input (one\n"
    "line on stderr, with the fix); 3 no budget fits (tune-budget); 130 interrupted.\n\n"
    + examples(
        "autometa run --dataset photos --time-budget 10m --memory-budget 4GB",
        "autometa doctor",
        "autometa run --help",
        'eval "$(autometa completion bash)"',
    ),
)
@click.version_option(autometa.__version__, prog_name="autometa", message="%(prog)s %(version)s")
@level_options
def cli() -> None:
    """AutoML for few-shot image classification under a time and memory budget.

    Each command has its own help: autometa COMMAND --help. Completion in a shell: autometa completion bash|zsh|fish.
    """


def main(arguments: list[str] | None = None, **extra: Any) -> None:
    """Run the command `autometa` and end the program."""
    cli.main(arguments, prog_name="autometa", **extra)
