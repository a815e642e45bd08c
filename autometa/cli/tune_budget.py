"""`autometa tune-budget`: what a budget buys on a dataset, what to set, and whether it fits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
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
from autometa.cli.run_setup import SEARCH, find_submission, names_ours, prepare_weights
from autometa.core.budget import process_age_s
from autometa.core.cgroups import count_cores
from autometa.core.errors import ConfigError
from autometa.core.progress import VERBOSE
from autometa.core.units import show_duration
from autometa.display import Display
from autometa.planning.serving_limits import asked_limits, to_variables
from autometa.tuning.options import TuneOptions, visible_devices
from autometa.tuning.profiles import Profile, read_profile
from ingestion import Event
from ingestion.terminal import prepare_process

if TYPE_CHECKING:
    from autometa.tuning.budget_file import Budget
    from autometa.tuning.grid import GridPlan

NOTHING_FITS = 3
"""Exit status: every point that was asked for ran, and none fits."""
FAILED = 1
"""Exit status: none fits, and some of the points failed."""


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa tune-budget photos --time-budget 30s,60s,3m,10m --memory-budget 1.5GB,2GB,4GB",
        "autometa tune-budget photos --threads 1,2 --target-score 95%-of-best --within 1h",
        "autometa tune-budget photos --submission autometa,prototypical --dry-run",
        "autometa run --config output/photos-budget/recommended.yaml",
        "autometa tune-budget --measure-profile mine.yaml",
        "autometa tune-budget photos --profile mine.yaml,pi5",
    ),
)
@click.argument("dataset", metavar="[DATASET]", required=False, type=click.Path(path_type=Path))
@model_options(TuneOptions, complete={"submission": complete_submission})
@config_option
@json_option("budget.json")
@level_options
def tune_budget(dataset: Path | None, config: Path | None, as_json: bool, **given: Any) -> None:
    """Try budgets of time, memory and processors on a dataset, and tell what each buys.

    Every point of the grid is a run like `autometa run`, the largest first. Runs of autometa itself take over what
    larger ones have computed and are charged what it took, so that less is embedded and trained twice.
    The output folder gets budget.json, budget.html and recommended.yaml, a file for `autometa run --config`.

    With `--profile`, they also have what the budgets are expected to buy on other machines: predictions, from this
    grid and half a minute of measuring this machine. `--measure-profile` writes a profile and needs no DATASET.

    Exit status: 0 when a budget fits, 3 when none does, 1 when none fits and points failed, 2 for bad arguments, 130
    when interrupted. `--resume` goes on then, and tries points again that failed.
    """
    start_s = process_age_s()
    prepare_process()
    console = make_console(stderr=as_json)
    options = merge_options(TuneOptions, config, given)
    if options.measure_profile is not None:
        _write_profile(options.measure_profile, options, as_json)
        return
    dataset = _check_dataset(dataset)
    for name in options.submission:
        find_submission(name)
    if options.device is not None:
        visible_devices(options.device)  # an error before anything has run
    profiles = [read_profile(name) for name in options.profile or ()]
    from autometa.tuning.grid import list_places, make_plan  # noqa: PLC0415 - the others are slow to import
    from autometa.tuning.tune import describe_plan  # noqa: PLC0415

    plan = make_plan(list_places(options, count_cores()), options.within)
    if options.dry_run:
        _show_plan(plan, as_json, describe_plan(plan))
        return
    if not plan.places:
        raise ConfigError(
            f"--within {show_duration(options.within or 0)}: {plan.dropped[-1].reason}; allow more"
        )
    display = Display(console, plan.total_s, time.monotonic(), level())
    _tell_limits(options, display)
    largest = max(options.memory_budget or (0,)) or None
    prepare_weights(options, dataset, max(options.time_budget), display.line, largest)
    for line in describe_plan(plan):
        display.line(line)
    budget, page = _run(dataset, options, plan, display, profiles, start_s)
    _show(budget, page, display, as_json)
    sys.exit(_exit_status(budget))


def _exit_status(budget: Budget) -> int:
    if budget.recommendation is not None:
        return 0
    return FAILED if any(point.status == "failed" for point in budget.points) else NOTHING_FITS


def _check_dataset(dataset: Path | None) -> Path:
    """The dataset. ConfigError where there is none."""
    if dataset is None:
        raise ConfigError(
            "DATASET: none is named; name a folder of class folders (only --measure-profile needs none)"
        )
    if not dataset.exists():
        raise ConfigError(
            f"DATASET {dataset}: there is no such file or folder; name a folder of class folders"
        )
    return dataset


def _write_profile(file: Path, options: TuneOptions, as_json: bool) -> None:
    """Measure this machine. ConfigError where the file is there or cannot be."""
    from autometa.tuning.elsewhere import measure_here  # noqa: PLC0415 - slow to import

    if file.exists() or not file.absolute().parent.is_dir():
        why = "exists" if file.exists() else "there is no such folder"
        raise ConfigError(f"--measure-profile {file}: {why}; name another file")
    profile = measure_here(file.stem[:100], max(options.threads or (count_cores(),)), options.device)
    try:
        profile.save(file)
    except OSError as error:
        raise ConfigError(
            f"--measure-profile {file}: cannot be written ({error.strerror}); name another file"
        ) from error
    if as_json:
        print_json(profile.model_dump(mode="json"))
    else:
        click.echo(f"profile of this machine: {file}")


def _tell_limits(options: TuneOptions, display: Display) -> None:
    """Say once of each submission on whose learning the limits have no effect."""
    asked = asked_limits(to_variables(options))
    for name in options.submission if asked else ():
        if not names_ours(find_submission(name), SEARCH):
            sized = "; a larger learner is told as one that does not fit" if options.max_model_size else ""
            display.line(
                f"{', '.join(asked)}: no effect on {name}, which does not use autometa's search{sized}"
            )


def _show_plan(plan: GridPlan, as_json: bool, lines: list[str]) -> None:
    if not as_json:
        for line in lines:
            click.echo(line)
        return
    rows = zip(plan.places, plan.seconds, strict=True)
    print_json({
        "places": [{**place.model_dump(), "seconds": seconds} for place, seconds in rows],
        "check_s": plan.check_s,
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
    dataset: Path,
    options: TuneOptions,
    plan: GridPlan,
    display: Display,
    profiles: Sequence[Profile],
    start_s: float,
) -> tuple[Budget, Path]:
    """Run the grid, and predict from it for other machines; what came of it, and the page."""
    from autometa.tuning.runner import Runner  # noqa: PLC0415 - slow to import
    from autometa.tuning.store import PAGE_FILE, Identity, Store  # noqa: PLC0415
    from autometa.tuning.tune import Tuning  # noqa: PLC0415

    name = f"{dataset.resolve().name}-budget-{time.strftime('%Y%m%d-%H%M%S')}"
    store = Store(options.output or Path("output") / name)
    runner = Runner(dataset, options, start_s, store.shared, partial(_show_event, display, level()))
    runner.check(plan.places, store.folder)
    identity = Identity.of(dataset, options)
    with store.claim(identity, resume=options.resume, overwrite=options.overwrite):
        tuning = Tuning(dataset, options, plan, runner, store, count_cores(), display.line)
        with display.live():
            budget = tuning.run()
            if profiles:
                budget = _predict(budget, profiles, options.device, display)
                tuning.write(budget)
    return budget, store.folder / PAGE_FILE


def _predict(budget: Budget, profiles: Sequence[Profile], device: str | None, display: Display) -> Budget:
    """The budget with what is expected on other machines; a line where this one cannot be measured, as the grid is
    done."""
    from autometa.tuning.elsewhere import measure_here, most_threads, predict_elsewhere  # noqa: PLC0415

    threads = most_threads(budget.points)
    if threads is None:
        display.line("nothing is predicted for other machines: no point has a score")
        return budget
    display.line("measures this machine, to predict for others")
    try:
        return predict_elsewhere(budget, profiles, measure_here("here", threads, device))
    except ConfigError as error:
        display.result(f"nothing is predicted for other machines: {error}; run it again with --resume")
        return budget


def _show(budget: Budget, page: Path, display: Display, as_json: bool) -> None:
    from autometa.tuning.budget_file import tell  # noqa: PLC0415 - slow to import
    from autometa.tuning.table import table_rows  # noqa: PLC0415

    if as_json:
        print_json(budget.model_dump(mode="json"))
        return
    print_columns(make_console(), *table_rows(budget))
    for line in tell(budget):
        display.result(line)
    if (found := budget.recommendation) is not None:
        display.result(f"recommended: {found.why}")
        display.result(f"  {found.command}")
        for line in found.check.tell() if found.check else ():
            display.result(line)
    display.result(f"page: {page}")
