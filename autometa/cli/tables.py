"""`autometa heads` and `autometa learners`: what there is, from the tables of the program and their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from autometa.bundles.shipped import list_baselines
from autometa.cli.options import CONTEXT, examples, json_option, print_json
from autometa.cli.output import make_console, print_columns
from autometa.cli.program import Command

NAME = r"[A-Z][\w'’-]+"
CITATION = re.compile(rf"{NAME}(?:,? (?:&|and) (?:de |van )?{NAME})?(?: et al\.)?,? (?:19|20)\d\d")

IN_BRACKETS = re.compile(rf" \({CITATION.pattern}\)")


@click.command(
    cls=Command, context_settings=CONTEXT, epilog=examples("autometa heads", "autometa heads --json")
)
@json_option("the table")
def heads(as_json: bool) -> None:
    """List the heads: what turns the features of an episode into class scores.

    A transductive head uses all queries of an episode together; `balanced`: it assumes as many of each class.
    """
    from autometa.heads import HEADS  # noqa: PLC0415 - imports torch

    table: dict[str, dict[str, Any]] = {}
    for name, spec in HEADS.items():
        function = getattr(spec.function, "func", spec.function)
        table[name] = {
            "kind": "transductive" if spec.transductive else "inductive",
            "needs_balance": spec.needs_balance,
            "parameters": spec.params,
            **_origin(function),
        }
    if as_json:
        print_json(table)
        return
    rows = [
        (
            name,
            f"{row['kind']}, balanced" if row["needs_balance"] else str(row["kind"]),
            ", ".join(f"{key}={value}" for key, value in row["parameters"].items()),
            row["source"],
            row["summary"],
        )
        for name, row in table.items()
    ]
    print_columns(make_console(), ("name", "kind", "parameters", "source", "what it is"), rows)


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples("autometa learners", "autometa learners --json", "autometa run --submission maml"),
)
@json_option("the table, with the options of each learner,")
def learners(as_json: bool) -> None:
    """List the learners: what is meta-trained, and the baseline that runs each.

    A baseline is a bundle that comes with autometa: autometa run --submission NAME.
    """
    from autometa.learners.recipe import LEARNERS  # noqa: PLC0415 - imports torch

    baselines = set(list_baselines())
    table: dict[str, dict[str, Any]] = {
        name: {
            "family": spec.family,
            "baseline": name if name in baselines else None,
            "options": _defaults(spec.cls.options_type.model_fields),
            **_origin(spec.cls),
        }
        for name, spec in LEARNERS.items()
    }
    if as_json:
        print_json(table)
        return
    rows = [
        (name, row["family"], row["baseline"] or "-", row["source"], row["summary"])
        for name, row in table.items()
    ]
    print_columns(make_console(), ("name", "family", "baseline", "source", "what it is"), rows)


def _defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Default of each option; None for one that must be given."""
    return {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in fields.items()
    }


def _origin(code: type | Callable[..., Any]) -> dict[str, str]:
    """The papers that the docstrings of a function or class and of its module name, and the latter's first line."""
    module = inspect.getmodule(code)
    about = (module.__doc__ if module else "") or ""
    found = cited(inspect.getdoc(code) or "") or cited(about)
    return {"source": "; ".join(found), "summary": IN_BRACKETS.sub("", about.partition("\n")[0]).rstrip(".")}


def cited(text: str) -> list[str]:
    """Papers named in a text, such as `Snell et al. 2017`, each once."""
    return list(dict.fromkeys(CITATION.findall(" ".join(text.split()))))
