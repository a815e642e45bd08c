"""`autometa config`: which options are in force, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from autometa.cli.options import (
    CONTEXT,
    config_option,
    describe_default,
    examples,
    json_option,
    merge_options,
    model_options,
    origins,
    print_json,
)
from autometa.cli.program import Group
from autometa.core.options import RunOptions
from autometa.core.settings import dump_yaml
from autometa.core.units import show_value


@click.group(
    cls=Group,
    context_settings=CONTEXT,
    epilog=examples("autometa config show", "autometa config show --config run.yaml --json"),
)
def config() -> None:
    """Show the options of a run that are in force."""


@config.command(
    "show",
    context_settings=CONTEXT,
    epilog=examples(
        "autometa config show > run.yaml",
        "autometa config show --config run.yaml --time-budget 10m",
        "autometa config show --json",
    ),
)
@model_options(RunOptions)
@config_option
@json_option("the options, each with `value` and `origin`,")
def show(config: Path | None, as_json: bool, **given: Any) -> None:
    """Print the options that `autometa run` would have, as YAML, and where each comes from.

    The options are those of `autometa run`; what is printed can be given back with --config.
    """
    options, found = merge_options(RunOptions, config, given), origins(RunOptions, config, given)
    values = {
        name: show_value(field, getattr(options, name)) for name, field in RunOptions.model_fields.items()
    }
    if as_json:
        print_json({name: {"value": value, "origin": found[name]} for name, value in values.items()})
        return
    for name, value in values.items():
        meaning = describe_default(RunOptions.model_fields[name]) if value is None else ""
        origin = f"{found[name]}: {meaning}" if meaning else found[name]
        click.echo(f"{f'{name}: {dump_yaml(value)}':<40} # {origin}")
