"""`autometa report`: scores and renders a finished run anew."""

from __future__ import annotations

import shutil
import webbrowser
from pathlib import Path

import click

from autometa.cli.options import CONTEXT, examples, json_option, level, level_options, print_json
from autometa.cli.output import make_console
from autometa.cli.program import BadInput, Command, Failure
from autometa.cli.records import scores_record
from autometa.cli.run_setup import is_in_use
from autometa.core.progress import QUIET
from autometa.display import score_table
from ingestion.disk import remove
from ingestion.outputs import TRUTH_FILE
from scoring import ScoreSummary, ScoringError, ScoringSettings, score


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa report output/photos-20250101-120000",
        "autometa report output/photos-20250101-120000 --output report.html --open",
        "autometa report output/photos-20250101-120000 --json",
    ),
)
@click.argument("run_dir", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Copy the report to this HTML file.",
)
@click.option("--open", "opens", is_flag=True, help="Open the report in a browser.")
@json_option("the scores and the path")
@level_options
def report(run_dir: Path, output: Path | None, opens: bool, as_json: bool) -> None:
    """Score a finished run again and render its report.

    RUN_DIR is the --output of a run: scores and report in it are replaced. Prints the path of the report.
    """
    summary = score_again(run_dir)
    page = summary.report
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            page = Path(shutil.copyfile(page, output))
        except (OSError, shutil.SameFileError) as error:
            raise BadInput(f"--output {output}: cannot be written ({error}); name another file") from error
    if as_json:
        print_json(scores_record(summary) | {"report": str(page)})
    else:
        if level() > QUIET:
            make_console(stderr=True).print(score_table(summary.overall, summary.datasets))
        click.echo(str(page))
    if opens and not webbrowser.open(page.resolve().as_uri()):
        raise Failure(f"--open: no browser was found; open {page} yourself")


def score_again(run_dir: Path) -> ScoreSummary:
    """Score what ingestion left in `run_dir`. BadInput where that cannot be done; then earlier scores stay."""
    results, scores = run_dir / "ingestion", run_dir / "scoring"
    if not results.is_dir():
        raise BadInput(f"RUN_DIR {run_dir}: has no folder `ingestion`; give the --output of a run")
    if is_in_use(run_dir):
        raise BadInput(f"RUN_DIR {run_dir}: a run is using it; wait until it has ended")
    if not (results / TRUTH_FILE).is_file():
        raise BadInput(
            f"RUN_DIR {run_dir}: `ingestion` holds no {TRUTH_FILE}; give the --output of a run that ended"
        )
    if not (scores / "scores.txt").exists():
        remove(scores)  # a killed run may have left a part
    try:
        return score(
            ScoringSettings(results_dir=results, output_dir_scoring=scores, overwrite_previous_results=True)
        )
    except (ScoringError, OSError) as error:
        raise BadInput(f"RUN_DIR {run_dir}: cannot be scored ({error})") from error
