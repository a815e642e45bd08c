"""`autometa tune-budget`: what a budget buys on a dataset, what to set, and whether it fits."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autometa.cli.options import (
    CONTEXT,
    config_option,
    examples,
    json_option,
    level,
    level_options,
    merge_options,
    model_options,
    print_json,
)
from autometa.cli.output import make_console, print_columns
from autometa.cli.program import Command
from autometa.cli.run import complete_submission
from autometa.cli.run_setup import find_submission, prepare_weights
from autometa.core.budget import process_age_s
from autometa.core.cgroups import count_cores
from autometa.core.errors import ConfigError
from autometa.core.progress import VERBOSE
from autometa.display import Display
from autometa.tuning.options import TuneOptions
from ingestion import Event
from ingestion.terminal import prepare_process

if TYPE_CHECKING:
    from autometa.tuning.grid import GridPlan

NOTHING_FITS = 3
"""Exit status: every point that was asked for ran, and none fits."""


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa tune-budget photos --time-budget 30s,60s,3m,10m --memory-budget 1.5GB,2GB,4GB",
        "autometa tune-budget photos --threads 1,2 --target-score 95%-of-best --within 1h",
        "autometa tune-budget photos --submission autometa,prototypical --dry-run",
        "autometa run --config output/photos-budget/recommended.yaml",
    ),
)
@click.argument("dataset", metavar="DATASET", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help=str(
    TuneOptions.model_fields["output"].description
) + " Default: output/NAME-budget-TIME.")  # fmt: skip
@model_options(TuneOptions, without={"output"}, complete={"submission": complete_submission})
@config_option
@json_option("budget.json")
@level_options
def tune_budget(dataset: Path, config: Path | None, as_json: bool, **given: Any) -> None:
    """Try budgets of time, memory and processors on a dataset, and tell what each buys.

    Every point of the grid is a run like `autometa run`, the largest first. Runs of autometa itself take over what
    larger ones have computed and are charged what it took, so that a grid costs little more than its largest point.
    The output folder gets budget.json, budget.html and recommended.yaml, a file for `autometa run --config`.

    Exit status: 0 when a budget fits, 3 when none does, 1 when the work failed, 2 for bad arguments, 130 when
    interrupted; `--resume` goes on then.
    """
    start_s = process_age_s()
    prepare_process()
    console = make_console(stderr=as_json)
    options = merge_options(TuneOptions, config, given)
    for name in options.submission:
        find_submission(name)
    if not dataset.exists():
        raise ConfigError(
            f"DATASET {dataset}: there is no such file or folder; name a folder of class folders"
        )
    from autometa.tuning.grid import list_places, make_plan  # noqa: PLC0415 - the others are slow to import
    from autometa.tuning.tune import describe_plan  # noqa: PLC0415

    plan = make_plan(list_places(options, count_cores()), options.within)
    if options.dry_run:
        _show_plan(plan, as_json, describe_plan(plan))
        return
    display = Display(console, plan.total_s, time.monotonic(), level())
    largest = max(options.memory_budget or (0,)) or None
    prepare_weights(options, dataset, max(options.time_budget), display.line, largest)
    for line in describe_plan(plan):
        display.line(line)
    sys.exit(_run(dataset, options, plan, display, start_s=start_s, as_json=as_json))


def _show_plan(plan: GridPlan, as_json: bool, lines: list[str]) -> None:
    if not as_json:
        for line in lines:
            click.echo(line)
        return
    rows = zip(plan.places, plan.seconds, strict=True)
    print_json({
        "places": [{**place.model_dump(), "seconds": seconds} for place, seconds in rows],
        "cold_s": plan.cold_s,
        "left_out": [{**each.place.model_dump(), "reason": each.reason} for each in plan.dropped],
        "total_s": plan.total_s,
    })  # fmt: skip


def _show_event(display: Display, shown: int, event: Event) -> None:
    """An event of one of the runs: of many runs, only failures are worth a line of their own."""
    if event.kind == "failure" or shown == VERBOSE:
        display.show(event)
    else:
        display.status.hear(event)


def _run(
    dataset: Path, options: TuneOptions, plan: GridPlan, display: Display, *, start_s: float, as_json: bool
) -> int:
    """Run the grid and show what came of it; the exit status."""
    from autometa.tuning.budget_file import tell  # noqa: PLC0415 - slow to import
    from autometa.tuning.runner import Runner  # noqa: PLC0415
    from autometa.tuning.store import PAGE_FILE, Identity, Store  # noqa: PLC0415
    from autometa.tuning.table import table_rows  # noqa: PLC0415
    from autometa.tuning.tune import Tuning  # noqa: PLC0415

    name = f"{dataset.resolve().name}-budget-{time.strftime('%Y%m%d-%H%M%S')}"
    store = Store(options.output or Path("output") / name)
    identity = Identity.of(dataset, options)
    with store.claim(identity, resume=options.resume, overwrite=options.overwrite):
        runner = Runner(dataset, options, start_s, store.shared, partial(_show_event, display, level()))
        tuning = Tuning(dataset, options, plan, runner, store, count_cores(), display.line)
        with display.live():
            budget = tuning.run()
    if as_json:
        print_json(budget.model_dump(mode="json"))
    else:
        print_columns(make_console(), *table_rows(budget))
        for line in tell(budget):
            display.result(line)
        if (found := budget.recommendation) is not None:
            display.result(f"recommended: {found.why}")
            display.result(f"  {found.command}")
        display.result(f"page: {store.folder / PAGE_FILE}")
    return 0 if budget.recommendation is not None else NOTHING_FITS
