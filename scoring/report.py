"""The HTML report: one page without other files, safe for untrusted names and reasons.

All text is escaped by the templates in `page/`, and the page forbids every script but its own, and every request.
"""

import base64
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scoring.calibration import Reliability
from scoring.charts import draw_curve, draw_histogram, draw_reliability, draw_timeline
from scoring.material import Material
from scoring.metrics import MAIN_METRIC
from scoring.outputs import Result
from scoring.summary import Estimate, Group, TaskScore
from scoring.text import display, one_line, seconds_text

_MINUS = "\N{MINUS SIGN}"
_PAGE = Path(__file__).parent / "page"
_MOST_TASKS = 2000
"""In the table of all tasks, so that the page stays small."""


@dataclass(frozen=True)
class MemoryRow:
    """Memory of a phase in bytes, None if unknown; `share`: measured, in relation to the budget."""

    phase: str
    predicted: float | None
    measured: float | None
    share: float | None


def render_report(result: Result, material: Material, notes: tuple[str, ...]) -> str:
    """Return the page; `notes` are shown to the reader."""
    summary, choices = result.summary, material.choices
    main = summary.overall.estimates[MAIN_METRIC.key]
    return (
        _environment()
        .get_template("page.html")
        .render(
            main=MAIN_METRIC,
            metrics=result.metrics,
            others=[metric for metric in result.metrics if metric != MAIN_METRIC],
            overall=summary.overall,
            sections=_sections(result),
            tasks=result.tasks,
            most_tasks=_MOST_TASKS,
            failed=[task for task in result.tasks if task.reason is not None],
            facts=_facts(result),
            run=result.run,
            choices=choices,
            timeline=draw_timeline(result.run),
            curve=None if choices is None else draw_curve(choices.served, result.run, main.mean, main.ci95),
            hardest=material.hardest,
            episodes=material.episodes,
            calibration=_calibration(result),
            bins=draw_reliability(summary.overall.reliability),
            memory=_memory(result, material),
            command=material.command,
            versions=material.versions,
            fingerprints=material.fingerprints,
            notes=notes,
            bar=_bar,
        )
    )


@functools.cache
def _environment() -> Environment:
    """The templates, which are compiled once in a process."""
    script = (_PAGE / "sort.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "show": display, "line": one_line, "duration": seconds_text}
    environment.filters |= {"told": _told, "percent": _percent, "points": _points, "bytes": _bytes}
    environment.globals |= {
        "style": _trusted(environment, "style.css"),
        "script": _trusted(environment, "sort.js"),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return environment


def _trusted(environment: Environment, name: str) -> Any:
    """The text of a file of this package, which is not escaped."""
    return environment.filters["safe"]((_PAGE / name).read_text(encoding="utf-8"))


def _sections(result: Result) -> list[dict[str, Any]]:
    summary = result.summary
    kinds: tuple[tuple[str, str, tuple[Group, ...], Callable[[TaskScore], str]], ...] = (
        ("dataset", "dataset", summary.datasets, lambda task: task.dataset),
        ("way", "ways", summary.ways, lambda task: str(task.ways)),
        ("shot", "shots", summary.shots, lambda task: str(task.shots)),
    )
    sections = []
    for kind, unit, groups, name_of in kinds:
        values: dict[str, list[float]] = {group.name: [] for group in groups}
        for task in result.tasks:
            values[name_of(task)].append(task.values[MAIN_METRIC.key])
        histograms = {name: draw_histogram(np.array(own)) for name, own in values.items()}
        sections.append({"kind": kind, "unit": unit, "groups": groups, "histograms": histograms})
    return sections


def _calibration(result: Result) -> list[tuple[str, Reliability]]:
    """The rows of the table of calibration; empty if it is not reported."""
    if not result.calibration:
        return []
    rows = [(group.name, group.reliability) for group in result.summary.datasets]
    return [*rows, ("all queries", result.summary.overall.reliability)]


def _memory(result: Result, material: Material) -> list[MemoryRow]:
    """What each phase was predicted to take, and took."""
    run, choices = result.run, material.choices
    predicted = {"meta-test": choices.meta_test_bytes} if choices and choices.meta_test_bytes else {}
    budget = run.memory_budget_bytes
    rows = []
    for phase in dict.fromkeys([*run.peaks, *predicted]):
        measured = run.peaks.get(phase)
        share = measured / budget if measured is not None and budget else None
        rows.append(MemoryRow(phase, predicted.get(phase), measured, share))
    return rows


def _facts(result: Result) -> list[tuple[str, str]]:
    """What ran, as pairs of a name and a text; what is unknown is left out."""
    run = result.run
    facts = [(name, run.facts[name]) for name in ("submission", "protocol") if name in run.facts]
    seed = run.facts.get("seed") or (None if result.seed is None else str(result.seed))
    facts += [("seed", seed)] if seed else []
    facts += [(name, run.facts[name]) for name in ("sandbox", "confinement") if name in run.facts]
    if run.time_budget_s is not None:
        facts.append(("time budget", seconds_text(run.time_budget_s)))
    facts.append(("duration", _duration(run.duration_s, run.time_budget_s)))
    times = (("meta-training", run.meta_train_s), ("meta-test", run.meta_test_s))
    facts += [(name, seconds_text(seconds)) for name, seconds in times if seconds is not None]
    if run.memory_budget_bytes:
        facts.append(("memory budget", _bytes(run.memory_budget_bytes)))
    return facts + list(run.machine.items())


def _duration(duration_s: float | None, budget_s: float | None) -> str:
    if duration_s is None or not budget_s:
        return seconds_text(duration_s)
    return f"{seconds_text(duration_s)} ({duration_s / budget_s:.0%} of the budget)"


def _number(value: float, digits: int = 3) -> str:
    """Write a score with a true minus sign, and without one if it rounds to zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", _MINUS)


def _told(value: float | None, form: str) -> str:
    """Write a number that may be unknown."""
    return "–" if value is None else format(value, form)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _points(value: float | None) -> str:
    """Write a gain in hundredths, with its sign."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", _MINUS)


def _bytes(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e9:.2f} GB"


def _bar(group: Group) -> dict[str, str]:
    """Return the geometry of a bar from 0 to 1 with its interval, in percent of the width."""
    main: Estimate = group.estimates[MAIN_METRIC.key]

    def percent(value: float) -> float:
        return 100 * min(1.0, max(0.0, value))

    low, high = percent(main.mean - main.ci95), percent(main.mean + main.ci95)
    return {"width": f"{percent(main.mean):.2f}", "low": f"{low:.2f}", "span": f"{high - low:.2f}"}
