"""`autometa completion`: the script that completes commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from autometa.cli.options import CONTEXT, examples
from autometa.cli.program import Command

PROGRAM, VARIABLE = "autometa", "_AUTOMETA_COMPLETE"


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa completion bash >> ~/.bashrc",
        "autometa completion zsh >> ~/.zshrc",
        "autometa completion fish > ~/.config/fish/completions/autometa.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    Put the line of the example for your shell into its start file.
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    click.echo(found(click.Command(PROGRAM), {}, PROGRAM, VARIABLE).source())
