"""The command `python -m scoring`, with the flags of the original program and `--truth`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scoring import GroupScore, ScoreSummary, ScoringError, ScoringSettings, score
from scoring.text import one_line, seconds_text

_DEFAULT = ScoringSettings()
_Command = Callable[..., None]


def _flag(name: str, kind: Any, default: Any, text: str) -> Callable[[_Command], _Command]:
    """Declare a flag with underscores, as in the original program, or with dashes."""
    spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
    return click.option(
        *spellings, name, type=kind, default=default, show_default=default is not None, help=text
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@_flag("seed", click.IntRange(min=0), _DEFAULT.seed, "Seed of ingestion; used only to draw the truth again.")
@_flag("verbose", bool, True, "Print the scores.")
@_flag("debug_mode", click.IntRange(min=0), _DEFAULT.debug_mode, "0: compute only the main metric.")
@_flag("private_information", bool, False, 'Write "Dataset i" instead of the names of datasets.')
@_flag("hide_samples", bool, False, "Leave pictures and names of test classes out of the report.")
@_flag(
    "overwrite_previous_results",
    bool,
    False,
    "True: empty an old output folder. False: rename it <folder>_<date>.",
)
@_flag(
    "test_tasks_per_dataset",
    click.IntRange(min=1),
    _DEFAULT.test_tasks_per_dataset,
    "Tasks per dataset; used only to draw the truth again.",
)
@_flag("input_data_dir", click.Path(path_type=Path), None, "Data, to draw the truth again if it is missing.")
@_flag("results_dir", click.Path(path_type=Path), _DEFAULT.results_dir, "Output of the ingestion program.")
@_flag(
    "output_dir_scoring", click.Path(path_type=Path), _DEFAULT.output_dir_scoring, "Folder for the scores."
)
@_flag("truth", click.Path(path_type=Path), None, "Ground truth  [default: <results_dir>/truth.json]")
def main(verbose: bool, **settings: Any) -> None:
    """Score the predictions of an ingestion run and write scores.json, scores.txt, plots and a report."""
    try:
        summary = score(ScoringSettings(**settings))
    except (ScoringError, OSError) as error:
        click.echo(f"scoring: {error}", err=True)
        sys.exit(1)
    if verbose:
        click.echo(_table(summary))


def _table(summary: ScoreSummary) -> str:
    names = [one_line(group.name, 40) for group in summary.datasets]
    width = max(map(len, [*names, "all tasks"]))
    lines = [f"{'dataset':{width}}  tasks  as chance  normalized accuracy (95 % interval)"]
    lines += [_row(name, group, width) for name, group in zip(names, summary.datasets, strict=True)]
    lines += [_row("all tasks", summary.overall, width)]
    lines += [f"note: {one_line(note)}" for note in summary.notes]
    lines += [f"duration {seconds_text(summary.duration_s)}; report: {summary.report}"]
    return "\n".join(lines)


def _row(name: str, group: GroupScore, width: int) -> str:
    interval = f" ± {group.ci95:.3f}" if group.tasks > 1 else ""
    return f"{name:{width}}  {group.tasks:5}  {group.missing:9}  {group.mean:.3f}{interval}"


if __name__ == "__main__":
    main(prog_name="python -m scoring")
