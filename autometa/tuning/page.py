"""The page of a grid: one HTML file without others, in the style of the report of a run.

All text is escaped by the templates in `html/`, and the page allows no script and no request.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import scoring
from autometa.core.units import show_duration
from autometa.tuning.budget_file import Budget, tell_measured, tell_predicted
from autometa.tuning.collect import show_budget, show_memory
from autometa.tuning.curve import signed
from autometa.tuning.grid import describe, show_seconds
from autometa.tuning.plot import draw
from autometa.tuning.point import Limits
from autometa.tuning.table import table_rows

_HTML = Path(__file__).parent / "html"
_STYLE = Path(scoring.__file__).parent / "page" / "style.css"


@functools.cache
def page_environment(folder: Path) -> Environment:
    """Templates in a folder, which escape all text. They are compiled once in a process."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_style() -> str:
    """The style of the report of a run."""
    return _STYLE.read_text("utf-8")


def render_page(budget: Budget) -> str:
    """The page."""
    environment = page_environment(_HTML)
    environment.filters |= {"duration": show_duration, "memory": show_memory, "budget": show_budget}
    environment.filters |= {"signed": signed, "spent": show_seconds, "limits": describe}
    safe = environment.filters["safe"]
    headings, rows = table_rows(budget)
    return environment.get_template("page.html").render(
        style=safe(page_style() + (_HTML / "budget.css").read_text("utf-8")),
        budget=budget,
        plot=draw(budget),
        headings=headings,
        rows=rows,
        marks=[(cell.submission, cell.limits) == _recommended(budget) for cell in budget.cells],
        sentences=tell_measured(budget),
        predicted=tell_predicted(budget),
        predictions=_predictions(budget),
        cost=_cost(budget),
    )


def _recommended(budget: Budget) -> tuple[str, Limits] | None:
    found = budget.recommendation
    return None if found is None else (found.submission, found.limits)


def _predictions(budget: Budget) -> list[dict[str, Any]]:
    """Points with what was expected before they ran, and what came."""
    rows = []
    for point in budget.points:
        if point.status == "inferred" or "total" not in point.predicted_s:
            continue
        own = "" if point.submission == budget.points[0].submission else f"{point.submission}, "
        rows.append({
            "name": own + describe(point.limits),
            "predicted_s": point.predicted_s["total"],
            "seconds": point.total_s,
            "predicted_bytes": point.predicted_peak_bytes,
            "bytes": point.peak_bytes,
            "charged_s": point.charged_s,
        })  # fmt: skip
    return rows


def _cost(budget: Budget) -> float | None:
    """What the grid took here, in relation to its largest point."""
    if not budget.spent_s or not budget.largest_s:
        return None
    return budget.spent_s / budget.largest_s
