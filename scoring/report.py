"""The HTML report: one page without other files, safe for untrusted names and reasons."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scoring.calibration import Reliability
from scoring.metrics import MAIN_METRIC
from scoring.outputs import Result
from scoring.summary import Estimate, Group
from scoring.text import display, one_line, seconds_text

_MINUS = "\N{MINUS SIGN}"


def render_report(result: Result, plots: dict[str, bytes], notes: tuple[str, ...]) -> str:
    """Return the page; `plots` holds PNG data by file name, `notes` are shown to the reader."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "show": display, "line": one_line, "duration": seconds_text}
    environment.filters["told"] = _told
    summary = result.summary
    return environment.get_template("template.html").render(
        main=MAIN_METRIC,
        metrics=result.metrics,
        others=[metric for metric in result.metrics if metric != MAIN_METRIC],
        overall=summary.overall,
        sections=_sections(result),
        tasks=result.tasks,
        failed=[task for task in result.tasks if task.reason is not None],
        facts=_facts(result),
        run=result.run,
        longest_s=max((seconds for _, seconds in result.run.stages), default=0.0),
        calibration=_calibration(result),
        notes=notes,
        plots={name: base64.b64encode(data).decode("ascii") for name, data in plots.items()},
        bar=_bar,
    )


def _sections(result: Result) -> list[dict[str, Any]]:
    summary = result.summary
    kinds = (("dataset", "dataset", summary.datasets), ("way", "ways", summary.ways))
    return [
        {"kind": kind, "unit": unit, "groups": groups}
        for kind, unit, groups in (*kinds, ("shot", "shots", summary.shots))
    ]


def _calibration(result: Result) -> list[tuple[str, Reliability]]:
    """The rows of the table of calibration; empty if it is not reported."""
    if not result.calibration:
        return []
    rows = [(group.name, group.reliability) for group in result.summary.datasets]
    return [*rows, ("all queries", result.summary.overall.reliability)]


def _facts(result: Result) -> list[tuple[str, str]]:
    """What ran, as pairs of a name and a text; what is unknown is left out."""
    run = result.run
    facts = [(name, run.facts[name]) for name in ("submission", "protocol") if name in run.facts]
    seed = run.facts.get("seed") or (None if result.seed is None else str(result.seed))
    facts += [("seed", seed)] if seed else []
    facts += [("sandbox", run.facts["sandbox"])] if "sandbox" in run.facts else []
    if run.time_budget_s is not None:
        facts.append(("time budget", seconds_text(run.time_budget_s)))
    facts.append(("duration", _duration(run.duration_s, run.time_budget_s)))
    times = (("meta-training", run.meta_train_s), ("meta-test", run.meta_test_s))
    facts += [(name, seconds_text(seconds)) for name, seconds in times if seconds is not None]
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


def _bar(group: Group) -> dict[str, str]:
    """Return the geometry of a bar from 0 to 1 with its interval, in percent of the width."""
    main: Estimate = group.estimates[MAIN_METRIC.key]

    def percent(value: float) -> float:
        return 100 * min(1.0, max(0.0, value))

    low, high = percent(main.mean - main.ci95), percent(main.mean + main.ci95)
    return {"width": f"{percent(main.mean):.2f}", "low": f"{low:.2f}", "span": f"{high - low:.2f}"}
