"""Options of commands, made from the settings model that declares them, and what all commands share.

A field of a settings model (see `autometa.core.settings.option`) declares an option once: its name, unit, default,
help and limits. From it come the option of the command line, the key in YAML, and the argument in Python.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autometa.core.progress import QUIET, USUAL, VERBOSE
from autometa.core.settings import load_yaml, validate_settings
from autometa.core.units import parse_size, show_value

Function = TypeVar("Function", bound=Callable[..., Any])
Model = TypeVar("Model", bound=BaseModel)
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Settings of all commands."""
LEVEL = "autometa.level"
"""Where the context of a command keeps how much it shows."""


def model_options(
    model: type[BaseModel], *, without: Collection[str] = (), complete: Mapping[str, Complete] | None = None
) -> Callable[[Function], Function]:
    """Decorates a command with an option for each field of `model`, but for those in `without`.

    Options that are not given are None in the arguments, whatever their default: `merge_options` fills it in
    after the file of `--config`. `complete` has functions that complete values in a shell.
    """

    def decorate(function: Function) -> Function:
        for name, field in reversed(model.model_fields.items()):
            if name not in without:
                function = _option(name, field, (complete or {}).get(name))(function)
        return function

    return decorate


def config_option(function: Function) -> Function:
    """Decorates a command with `--config YAML`, the argument `config`."""
    kind = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option(
        "--config", metavar="YAML", type=kind, help="A file with any of these options, by their names."
    )(function)


def merge_options(model: type[Model], config: Path | None, given: Mapping[str, Any]) -> Model:
    """The options of the command line and of the file; the former take precedence. ConfigError names the option and
    the fix. Those that were given, in one of the two, are the `model_fields_set` of the result."""
    options = load_yaml(config, model).model_dump(exclude_unset=True) if config else {}
    return validate_settings(model, options | _chosen(given), "options")


def origins(model: type[BaseModel], config: Path | None, given: Mapping[str, Any]) -> dict[str, str]:
    """Where the value of each option comes from: `command line`, the name of the file, or `default`."""
    in_file = load_yaml(config, model).model_fields_set if config else set()
    found = {name: str(config) if name in in_file else "default" for name in model.model_fields}
    return found | dict.fromkeys(_chosen(given), "command line")


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def describe_default(field: FieldInfo) -> str:
    """The default of an option for people; "" where it is to be given, absent or off."""
    if field.is_required():
        return ""
    unset, default = _extra(field, "unset"), field.get_default(call_default_factory=True)
    if default is None or default is False:
        return unset
    value = show_value(field, default)
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{shown}, {unset}" if unset else shown


def _option(name: str, field: FieldInfo, complete: Complete | None) -> Callable[[Function], Function]:
    flag = f"--{name.replace('_', '-')}"
    default = describe_default(field)
    text = " ".join(filter(None, [field.description, default and f"Default: {default}."]))
    kinds = _kinds(field.annotation)
    if bool in kinds:
        switch = f"{flag}/--no-{flag[2:]}" if field.default else flag
        return click.option(switch, name, is_flag=True, default=None, help=text)
    choices = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    only_choices = bool(choices) and all(get_origin(kind) is Literal for kind in kinds)
    kind: Any = click.STRING
    if only_choices:
        kind = click.Choice([str(choice) for choice in choices])
    elif Path in kinds:
        kind = click.Path()
    metavar = _extra(field, "metavar") or ("|".join(map(str, choices)) if choices else None)
    flags = [*filter(None, [_extra(field, "short")]), flag]
    return click.option(*flags, name, metavar=metavar, type=kind, help=text, shell_complete=complete)


def _kinds(annotation: Any) -> list[Any]:
    """The types that a value may have, without None."""
    origin = get_origin(annotation)
    members = get_args(annotation) if origin in (Union, types.UnionType) else (annotation,)
    return [kind for kind in members if kind is not type(None)]


def _extra(field: FieldInfo, key: str) -> str:
    extra = field.json_schema_extra
    return str(extra.get(key) or "") if isinstance(extra, dict) else ""


def read_size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: bytes of a size such as 500MB; click.BadParameter if it is none."""
    try:
        return None if value is None else int(parse_size(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def examples(*lines: str) -> str:
    """The block of examples at the end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def json_option(text: str) -> Callable[[Function], Function]:
    """Decorates a command with `--json`, the argument `as_json`; `text` says what is printed."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {text} as JSON.")


def print_json(content: object) -> None:
    """Print JSON to stdout, where nothing else may go."""
    click.echo(json.dumps(content, indent=2, default=str))


def level_options(function: Function) -> Function:
    """Decorates a command, or the group of all, with `-q` and `-v`; `level` tells what was given to either."""
    for short, long, value, text in (
        ("-v", "--verbose", VERBOSE, "Show every line of the work."),
        ("-q", "--quiet", QUIET, "Show only the result."),
    ):
        function = click.option(
            short, long, is_flag=True, expose_value=False, help=text, callback=_set_level(value)
        )(function)
    return function


def _set_level(value: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def keep(context: click.Context, _: click.Parameter, given: bool) -> None:
        if not given:
            return
        if context.meta.get(LEVEL, value) != value:
            raise click.UsageError("--quiet and --verbose exclude each other; give one of them", context)
        context.meta[LEVEL] = value

    return keep


def level() -> int:
    """How much the running command shows: QUIET, USUAL or VERBOSE."""
    found: int = click.get_current_context().meta.get(LEVEL, USUAL)
    return found
