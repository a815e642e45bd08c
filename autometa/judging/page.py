"""The page of a judging: one HTML file in the style of the report of a run, with links to the reports of the runs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from autometa.judging.runs import run_folder
from autometa.judging.table import HEADINGS, table_rows, tell
from autometa.judging.verdict import Verdict
from autometa.tuning.page import page_environment, page_style

_HTML = Path(__file__).parent / "html"


def render_page(verdict: Verdict, folder: Path) -> str:
    """The page; `folder`: of the judging, where reports of runs are linked that are there."""
    environment = page_environment(_HTML)
    links = [
        [(seed, _report_link(folder, each.submission, seed)) for seed in verdict.seeds]
        for each in verdict.standings
    ]
    return environment.get_template("page.html").render(
        style=environment.filters["safe"](page_style()),
        verdict=verdict,
        headings=HEADINGS,
        rows=table_rows(verdict),
        links=links,
        sentences=tell(verdict),
    )


def _report_link(folder: Path, name: str, seed: int) -> str:
    """Where the report of a run is, from the page; "" where there is none."""
    report = run_folder(folder, name, seed) / "scoring" / "report.html"
    return quote(str(report.relative_to(folder))) if report.is_file() else ""
