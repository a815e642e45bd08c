"""`autometa judge`: many submissions on the same tasks, and their ranking."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autometa.bundles.shipped import DEMO
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
from autometa.cli.program import FAILED, Command
from autometa.cli.run import complete_submission
from autometa.cli.run_setup import check_backbones
from autometa.core.errors import ConfigError
from autometa.display import Display
from autometa.judging.options import JudgeOptions
from ingestion.terminal import prepare_process

if TYPE_CHECKING:
    from autometa.judging.submissions import Submission
    from autometa.judging.verdict import Verdict


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa judge submissions/*.zip --dataset photos --seeds 3 -o judged",
        "autometa judge submissions/*.zip --dataset photos --seeds 3 -o judged --resume",
        "autometa judge autometa prototypical random --time-budget 1m --json > judging.json",
        "autometa judge submissions/*.zip --dataset photos --ray 10.0.0.1:6379 -o judged",
    ),
)
@click.argument(
    "submissions", metavar="SUBMISSIONS...", nargs=-1, required=True, shell_complete=complete_submission
)
@model_options(JudgeOptions, without={"submission"})
@config_option
@json_option("judging.json")
@level_options
def judge(submissions: tuple[str, ...], config: Path | None, as_json: bool, **given: Any) -> None:
    """Run submissions on the same tasks, one after the other or on a cluster, and rank them.

    SUBMISSIONS are folders, zips, or names of baselines. Each runs once for each seed, as `autometa run` would do it,
    in a process of its own with its own time, memory and sandbox. Every run that has ended is in runs.jsonl at once,
    so `--resume` goes on after a kill. A run that fails is a row with its reason and counts as chance on its tasks.
    The output folder gets judging.json, judging.html and the files of each run.

    Exit status: 0 when all runs are done and one of them was scored, 1 when none was or the ledger cannot be written,
    2 for bad arguments, 130 when interrupted.
    """
    prepare_process()
    options = merge_options(JudgeOptions, config, given)
    from autometa.judging.submissions import find_submissions  # noqa: PLC0415 - slow to import

    dataset, found = options.dataset or DEMO, find_submissions(submissions)
    if not dataset.exists():
        raise ConfigError(f"--dataset {dataset}: there is no such file or folder; name a dataset")
    display = Display(make_console(stderr=as_json), options.time_budget, time.monotonic(), level())
    show_once = cache(display.line)
    for each in found:
        check_backbones(options, each.path, show_once)
    verdict, page = _judge(found, dataset, options, display)
    if as_json:
        print_json(verdict.model_dump(mode="json"))
    else:
        _show(verdict, display)
        display.result(f"page: {page}")
    sys.exit(0 if verdict.scored else FAILED)


def _judge(
    submissions: Sequence[Submission], dataset: Path, options: JudgeOptions, display: Display
) -> tuple[Verdict, Path]:
    """Do the runs that are missing; the verdict, and its page."""
    from autometa.judging import folder as place  # noqa: PLC0415 - these are slow to import
    from autometa.judging.judge import judge as do  # noqa: PLC0415
    from autometa.judging.judge import list_units, missing_units  # noqa: PLC0415
    from autometa.judging.places import choose_place  # noqa: PLC0415

    name = f"{dataset.resolve().name}-judging-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = options.output or Path("output") / name
    with place.claim_judging(folder, resume=options.resume, overwrite=options.overwrite):
        ledger, executor = place.ledger_of(folder), None
        if options.overwrite:  # nothing is deleted for a dataset or a cluster that cannot be used
            machines = choose_place(options, None)
            executor = machines.executor(folder, dataset, display.line)
            place.clear_judging(folder)
        else:
            ledger.tidy()
            machines = choose_place(options, place.earlier_memory(ledger))
        identity = place.identity_of(dataset, options, machines.memory_bytes)
        ledger.open(identity)
        if ledger.cut_bytes:
            display.line(f"{ledger.file}: its damaged end is cut off ({ledger.cut_bytes} bytes)")
        units = list_units(submissions, options.all_seeds)
        missing = missing_units(units, ledger, display.line, retry_failed=options.retry_failed)
        display.line(f"{len(units)} runs, {len(units) - len(missing)} of them done before")
        if missing:
            executor = executor or machines.executor(folder, dataset, display.line)
            do(missing, ledger, executor, display.line)
        from autometa.judging.verdict import decide  # noqa: PLC0415 - imports torch, so only after the runs

        names = [each.name for each in submissions]
        verdict = decide(identity, names, options.all_seeds, ledger.rows(), options.tasks_per_dataset)
        return verdict, place.write_verdict(folder, verdict)


def _show(verdict: Verdict, display: Display) -> None:
    from autometa.judging.table import HEADINGS, table_rows, tell  # noqa: PLC0415 - slow to import

    print_columns(make_console(), HEADINGS, table_rows(verdict))
    for line in tell(verdict):
        display.result(line)
