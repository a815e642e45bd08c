"""`autometa bundle`: a solution to submit, or a competition for Codabench."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from autometa.cli.options import CONTEXT, examples
from autometa.cli.program import Command
from autometa.core.errors import AutometaError
from autometa.core.units import parse_duration
from ingestion.errors import InputError

OUTPUT = ("output", "overwrite")
HEEDED = {
    "name": (*OUTPUT, "dry_run", "dry_run_budget", "with_autometa", "vendor", "weights", "backbones"),
    "competition": (
        *OUTPUT, "title", "time_budget", "tasks", "query_per_class", "seed", "start", "days", "queue", "image"
    ),
    "check": (),
}  # fmt: skip
"""The options that mean something to a bundle, to a competition and to a check."""
WITH = {"name": "on a bundle", "competition": "with --competition", "check": "with --check"}


def read_duration(value: str | float) -> float:
    """Seconds, written as 90s, 10m or 2h; click.BadParameter if it is none."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    "bundle",
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa bundle my_bundle -o solution.zip",
        "autometa bundle prototypical -o prototypical.zip --no-dry-run",
        "autometa bundle --competition photos -o competition.zip --days 30",
        "autometa bundle --check competition.zip",
    ),
)
@click.argument("name", metavar="[DIR|ZIP|NAME]", required=False)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The zip file to write."
)
@click.option("--overwrite", is_flag=True, help="Replace the zip file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--dry-run/--no-dry-run", default=True, help="Try the zip file on the demo. Default: yes.")
@click.option(
    "--dry-run-budget",
    type=read_duration,
    metavar="TIME",
    default="60s",
    help="Time of the dry run. Default: 60s.",
)
@click.option(
    "--with-autometa/--without-autometa",
    default=None,
    help="Put autometa into the zip file. Default: if the bundle imports it.",
)
@click.option(
    "--vendor/--no-vendor",
    default=True,
    help="With autometa, put in what it needs beyond torch and timm. Default: yes.",
)
@click.option("--weights", is_flag=True, help="Put pretrained weights in.")
@click.option(
    "--backbones", metavar="NAME,...", default="", help="Whose weights. Default: those of packages."
)
@click.option(
    "--competition",
    metavar="DATASET",
    type=click.Path(path_type=Path),
    help="Make a competition from this dataset instead.",
)
@click.option("--check", metavar="ZIP", type=click.Path(path_type=Path), help="Check a competition instead.")
@click.option(
    "--title",
    metavar="TEXT",
    default="",
    help="Title of the competition. Default: Few-shot image classification.",
)
@click.option(
    "--time-budget",
    type=read_duration,
    metavar="TIME",
    default="9m",
    help="Competition: time of a submission. Default: 9m.",
)
@click.option(
    "--tasks",
    metavar="N",
    type=click.IntRange(1),
    default=20,
    help="Competition: tasks a dataset. Default: 20.",
)
@click.option(
    "--query-per-class",
    metavar="N",
    type=click.IntRange(1),
    help="Competition: query images per class. Default: 20, fewer if classes are small.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0),
    default=93,
    help="Competition: seed of splits and tasks. Default: 93.",
)
@click.option("--start", metavar="DATE", help="Competition: first day, as 2027-01-31. Default: today.")
@click.option(
    "--days",
    metavar="N",
    type=click.IntRange(1),
    default=60,
    help="Competition: days of the first phase. Default: 60.",
)
@click.option("--queue", metavar="UUID", default="", help="Competition: the queue of your own workers.")
@click.option("--image", metavar="NAME", default="", help="Competition: the Docker image of both programs.")
@click.pass_context
def bundle(context: click.Context, /, output: Path | None, as_json: bool, **given: Any) -> None:
    """Pack the submission in a folder (or the baseline NAME) into a zip file: it is checked first and tried after.

    With --competition, make a competition bundle for Codabench from a dataset; with --check, check one.

    Exit status: 0 when all is well, 1 when something was found wrong, 2 for bad arguments.
    """
    modes = [mode for mode in ("name", "competition", "check") if given[mode] is not None]
    if len(modes) != 1:
        raise click.UsageError("give one of: a bundle (DIR, ZIP or NAME), --competition DATASET, --check ZIP")
    _refuse_what_has_no_effect(context, modes[0])
    try:
        if modes == ["check"]:
            _show_check(given["check"], as_json=as_json)
            return
        if output is None:
            raise click.UsageError("give the zip file to write with -o")
        if modes == ["name"]:
            _show_solution(output, given, as_json=as_json)
        else:
            _show_competition(output, given, as_json=as_json)
    except (AutometaError, InputError) as error:
        raise click.UsageError(str(error)) from error


def _refuse_what_has_no_effect(context: click.Context, mode: str) -> None:
    heeded = {mode, "as_json", *HEEDED[mode]}
    for name in context.params:
        if (
            name not in heeded
            and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(f"--{name.replace('_', '-')} has no effect {WITH[mode]}; leave it out")


def _show_solution(output: Path, given: dict[str, Any], *, as_json: bool) -> None:
    from autometa.bundles.solution import Options, lines_of, make_solution  # noqa: PLC0415 - slow to import

    backbones = tuple(name.strip() for name in given["backbones"].split(",") if name.strip())
    options = Options(
        overwrite=given["overwrite"],
        with_autometa=given["with_autometa"],
        vendor=given["vendor"],
        weights=given["weights"] or bool(backbones),
        backbones=backbones,
        dry_run_s=given["dry_run_budget"] if given["dry_run"] else None,
    )
    solution = make_solution(given["name"], output, options)
    _print(asdict(solution) | {"succeeded": solution.succeeded}, lines_of(solution), as_json=as_json)
    sys.exit(0 if solution.succeeded else 1)


def _show_competition(output: Path, given: dict[str, Any], *, as_json: bool) -> None:
    from autometa.bundles.competition import Plan, lines_of, make_competition  # noqa: PLC0415 - slow to import

    fields = ("title", "tasks", "query_per_class", "seed", "start", "days", "queue", "image")
    plan = Plan(
        time_budget_s=given["time_budget"],
        **{name: given[name] for name in fields if given[name] not in (None, "")},
    )
    made = make_competition(given["competition"], output, plan, overwrite=given["overwrite"])
    _print(asdict(made), lines_of(made), as_json=as_json)


def _show_check(archive: Path, *, as_json: bool) -> None:
    from autometa.bundles.competition_check import check_competition  # noqa: PLC0415 - slow to import

    problems = check_competition(archive)
    lines = problems or [f"{archive}: nothing is wrong with it"]
    _print({"competition": str(archive), "problems": problems}, lines, as_json=as_json)
    sys.exit(1 if problems else 0)


def _print(content: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(content, indent=1, default=str))
        return
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    bundle()
