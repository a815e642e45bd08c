"""`autometa run`: ingestion, then scoring, then a table of scores."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from autometa.bundles.shipped import DEMO, list_baselines
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
from autometa.cli.output import make_console
from autometa.cli.program import FAILED, Command, Failure
from autometa.cli.records import run_record, scores_record
from autometa.cli.run_setup import (
    check_backbones,
    check_memory,
    claim_output,
    find_submission,
    give_up_output,
    ingestion_settings,
    pass_limits,
    prepare_weights,
)
from autometa.core.budget import process_age_s
from autometa.core.options import RunOptions
from autometa.display import Display, score_table
from ingestion import IngestionResult, IngestionSettings, InputError
from ingestion import run as run_ingestion
from ingestion.disk import remove
from ingestion.outputs import LOG_FILE
from ingestion.terminal import first_interrupt, prepare_process
from scoring import ScoreSummary, ScoringError, ScoringSettings, score


def complete_submission(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of baselines, else files."""
    found = [CompletionItem(name) for name in list_baselines() if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa run",
        "autometa run photos --time-budget 10m --memory-budget 4GB",
        "autometa run --submission prototypical --ways 5 --shots 1-5 --output first",
        "autometa run --config run.yaml --json > scores.json",
    ),
)
@click.argument("folder", metavar="[DATASET]", required=False, type=click.Path())
@model_options(RunOptions, complete={"submission": complete_submission})
@config_option
@json_option("the scores")
@level_options
def run(folder: str | None, config: Path | None, as_json: bool, **given: Any) -> None:
    """Run a submission on a dataset within a time and memory budget and score it.

    DATASET is the same as --dataset.

    Exit status: 0 when ingestion and scoring succeeded, 1 when the run failed, 2 for bad arguments, 130 when
    interrupted before there were results.
    """
    started = time.monotonic() - process_age_s()
    prepare_process()
    console = make_console(stderr=as_json)
    options = read_options(config, _with_folder(folder, given))
    display = Display(console, options.time_budget, started, level())
    started += prepare_weights(
        options, options.dataset or DEMO, options.time_budget, display.line, options.memory_budget
    )
    started += check_backbones(options, find_submission(options.submission), display.line)
    started += check_memory(options.memory_budget, display.line)
    display.status.started = started
    settings = ingestion_settings(options, started)
    pass_limits(options, settings.submission, display.line)
    display.status.memory_bytes = settings.memory_budget_bytes
    result, summary = _run_and_score(settings, options, display)
    if as_json:
        print_json(scores_record(summary) | run_record(result, options))
    else:
        console.print(score_table(summary.overall, summary.datasets))
        display.line(f"ingestion took {result.seconds['total']:.1f} s of {options.time_budget:.0f} s")
        if result.failures:
            display.line(f"what the submission printed: {settings.output_dir / LOG_FILE}")
        display.result(f"report: {summary.report}")
    sys.exit(0 if result.succeeded else FAILED)


def _run_and_score(
    settings: IngestionSettings, options: RunOptions, display: Display
) -> tuple[IngestionResult, ScoreSummary]:
    """Ingestion and scoring in a folder that is this run's alone; nothing of it is left where the run is refused."""
    output = settings.output_dir.parent
    was_there = output.exists()
    with claim_output(output, overwrite=options.overwrite, resume=options.resume):
        try:
            with display.live():
                result = run_ingestion(
                    settings,
                    display.show,
                    overwrite=options.overwrite,
                    resume=options.resume,
                    on_claimed=partial(remove, output / "scoring"),
                )
        except InputError:
            give_up_output(output, was_there=was_there)
            raise
        with first_interrupt():  # the results are there
            return result, score_run(output)


def _with_folder(folder: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The options, with a dataset that stands alone on the command line."""
    if folder is None:
        return given
    if given["dataset"] is not None:
        raise click.UsageError(
            f"DATASET `{folder}` and --dataset `{given['dataset']}` are the same; give one"
        )
    return given | {"dataset": folder}


def score_run(folder: Path) -> ScoreSummary:
    """Score what ingestion left in the output folder of a run. Failure says why that cannot be done."""
    try:
        return score(ScoringSettings(results_dir=folder / "ingestion", output_dir_scoring=folder / "scoring"))
    except (ScoringError, OSError) as error:
        raise Failure(f"scoring failed: {error}") from error


def read_options(config: Path | None, given: dict[str, Any]) -> RunOptions:
    """Options of the command line and of the file; the former take precedence. ConfigError names the option and the
    fix."""
    return merge_options(RunOptions, config, given)
