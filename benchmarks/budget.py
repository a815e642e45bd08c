"""What a grid of budgets costs in relation to its largest point, and whether what it recommends comes true.

    python benchmarks/budget.py [--quick] [--json FILE] [--output DIR] [--dataset DIR]

A grid of 4 time budgets × 2 memory budgets on the demo, alone on the machine. `budget/grid_cost`: seconds of all
points over those of the largest one (reference; below 1.6 is good). `budget/recommended/score` and `.../seconds`:
what the recommended budget came to when it ran alone, beside what the grid promised. `budget/predicted/seconds` and
`.../bytes`: the largest error of what was expected of a point before it ran, in per cent. `--quick` has 2 × 1 points
with few tasks: it shows that all of it works, and no figure of it counts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from _learner_report import Report, Row, row

from autometa.bundles.shipped import DEMO
from autometa.core.budget import process_age_s
from autometa.core.cgroups import count_cores
from autometa.tuning.budget_file import Budget
from autometa.tuning.grid import list_places, make_plan
from autometa.tuning.options import TuneOptions
from autometa.tuning.point import Point
from autometa.tuning.runner import Runner
from autometa.tuning.store import Identity, Store
from autometa.tuning.tune import Tuning
from ingestion.terminal import prepare_process

FULL = {"time_budget": "30s,60s,3m,10m", "memory_budget": "2GB,4GB"}
QUICK = {
    "time_budget": "25s,30s",
    "memory_budget": "4GB",
    "ways": "2-3",
    "shots": "1-2",
    "tasks_per_dataset": 1,
}


def run_grid(folder: Path, dataset: Path, options: TuneOptions, start_s: float) -> Budget:
    """The grid in a folder, from the beginning or, where an earlier one was ended there, from where it was."""
    store = Store(folder)
    plan = make_plan(list_places(options, count_cores()))
    with store.claim(Identity.of(dataset, options), resume=True, overwrite=False):
        runner = Runner(dataset, options, start_s, store.shared)
        report = Tuning(
            dataset, options, plan, runner, store, count_cores(), lambda line: print(line, flush=True)
        )
        return report.run()


def rows_of(budget: Budget) -> Iterator[Row]:
    """What the benchmark tells of a grid."""
    note = f"{len(budget.points)} points, largest {budget.largest_s or 0:.0f} s, {budget.cores} processors"
    if budget.spent_s and budget.largest_s:
        yield row("budget/grid_cost", budget.spent_s, "s", budget.largest_s, note=note)
    yield row(
        "budget/late", sum(point.status != "inferred" and is_late(point) for point in budget.points), "points"
    )
    yield row("budget/over_memory", sum(map(is_over_memory, budget.points)), "points")
    if (found := budget.recommendation) is not None and (check := found.check) is not None:
        if check.score is not None:
            ci95 = check.promised_ci95
            yield row(
                "budget/recommended/score", check.score, "%", check.promised_score, ci95=ci95, note=found.why
            )
        if check.seconds is not None:
            yield row("budget/recommended/seconds", check.seconds, "s", check.promised_s, note=found.why)
    known = [point for point in budget.points if point.status == "ok" and "total" in point.predicted_s]
    if known:
        errors_s = [error_of(point.predicted_s["total"], point.total_s) for point in known]
        errors_bytes = [error_of(point.predicted_peak_bytes, point.peak_bytes) for point in known]
        yield row("budget/predicted/seconds", max(errors_s), "% error", note=note)
        yield row("budget/predicted/bytes", max(errors_bytes), "% error", note=note)


def is_late(point: Point) -> bool:
    """Whether a run took longer than its budget."""
    return point.total_s is not None and point.total_s > point.time_budget_s


def is_over_memory(point: Point) -> bool:
    """Whether a run held more than its budget."""
    return bool(
        point.peak_bytes and point.memory_budget_bytes and point.peak_bytes > point.memory_budget_bytes
    )


def error_of(expected: float | None, measured: float | None) -> float:
    """By how much something was expected wrongly, in per cent of what came; 100 where one is not known."""
    if not expected or not measured:
        return 100.0
    return 100 * abs(expected - measured) / measured


def main() -> None:
    """Parse the command line, run the grid, write."""
    start_s = process_age_s()
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="two small points, few tasks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep the grid, and go on with one that was ended"
    )
    parser.add_argument("--dataset", type=Path, default=DEMO, metavar="DIR")
    asked = parser.parse_args()
    prepare_process()
    options = TuneOptions.model_validate(QUICK if asked.quick else FULL)
    with tempfile.TemporaryDirectory(prefix="budget-") as scratch:
        budget = run_grid(asked.output or Path(scratch) / "grid", asked.dataset, options, start_s)
    report = Report(asked.json, f"{asked.dataset.name}, {count_cores()} processors", resume=False)
    report.add(list(rows_of(budget)))


if __name__ == "__main__":
    main()
