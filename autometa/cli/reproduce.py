"""`autometa reproduce`: a row of a published table, trained and tested again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from autometa.cli.options import (
    CONTEXT,
    examples,
    json_option,
    level,
    level_options,
    merge_options,
    model_options,
    print_json,
)
from autometa.cli.output import make_console, print_columns
from autometa.cli.program import BadInput, Command
from autometa.core.progress import QUIET
from autometa.papers.options import ReproduceOptions

if TYPE_CHECKING:
    from autometa.papers.recipes import NamedRecipe


def complete_recipe(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of recipes."""
    from autometa.papers.recipes import list_names  # noqa: PLC0415 - imports torch

    return [CompletionItem(name) for name in list_names() if name.startswith(incomplete)]


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa reproduce --list",
        "autometa reproduce maml/omniglot-5way-1shot --data omniglot",
        "autometa reproduce prototypical/mini-5way-5shot --data miniimagenet --seed 1 -o proto-1",
        "autometa reproduce cavia/mini-5way-1shot --data miniimagenet --steps 200 --tasks 50",
    ),
)
@click.argument("recipe", metavar="[RECIPE]", required=False, shell_complete=complete_recipe)
@model_options(ReproduceOptions)
@json_option("the result, or the list,")
@level_options
def reproduce(recipe: str | None, as_json: bool, **given: Any) -> None:
    """Train and test a learner as in a row of a published table, and compare the figures.

    RECIPE is one of --list, or a YAML file of that form. Training has no time limit and goes on where it was after a
    kill: run the same command again. The accuracy is the plain one, with its 95 % interval over tasks.
    """
    options = merge_options(ReproduceOptions, None, given)
    if options.list:
        _show_list(as_json)
        return
    if recipe is None or options.data is None:
        raise BadInput(
            "RECIPE and --data DIR are needed: what to reproduce, and the dataset; see: autometa reproduce --list"
        )
    _run(recipe, options.data, options, as_json)


def _run(name: str, folder: Path, options: ReproduceOptions, as_json: bool) -> None:
    """Read the data, train, test, show."""
    from autometa.papers.paper_data import load_data  # noqa: PLC0415 - imports torch
    from autometa.papers.recipes import read_recipe  # noqa: PLC0415
    from autometa.papers.reproduction import Reproduction  # noqa: PLC0415

    shown = level() > QUIET

    def report(line: str) -> None:
        if shown:
            click.echo(line, err=True)

    named = read_recipe(name)
    for line in named.recipe.differs:
        report(f"differs from the paper: {line}")
    data = load_data(named.recipe.data, folder, named.recipe.px, split=options.split, report=report)
    reproduction = Reproduction(named, options.seed, options.steps, options.tasks)
    output = options.output or Path("output") / "papers" / f"{named.name.replace('/', '-')}-{options.seed}"
    result = reproduction.run(data, output, report)
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    for line in [*result.tell(), f"result: {output / 'result.json'}"]:
        click.echo(line)


def _show_list(as_json: bool) -> None:
    from autometa.papers.recipes import list_recipes  # noqa: PLC0415 - imports torch

    recipes = list_recipes()
    if as_json:
        print_json({each.name: each.recipe.model_dump(mode="json") for each in recipes})
        return
    print_columns(make_console(), ("recipe", "data", "published", "paper"), [_row(each) for each in recipes])


def _row(named: NamedRecipe) -> tuple[str, str, str, str]:
    recipe = named.recipe
    return named.name, recipe.data, f"{recipe.published} %", f"{recipe.paper}, {recipe.table}"
