"""The table of a grid: a row for each budget."""

from __future__ import annotations

from collections.abc import Sequence

from autometa.core.units import show_duration
from autometa.tuning.budget_file import Budget
from autometa.tuning.collect import show_budget, show_memory
from autometa.tuning.curve import Cell, compare, largest_of, signed


def table_rows(budget: Budget) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each budget. Columns that are the same or unknown for all are left out, but for score,
    time and memory."""
    cells = budget.cells
    columns = {
        "submission": [cell.submission for cell in cells],
        "time": [show_duration(cell.limits.time_budget_s) for cell in cells],
        "memory": [show_budget(cell.limits.memory_budget_bytes) for cell in cells],
        "GPU memory": [show_budget(cell.limits.gpu_memory_budget_bytes) for cell in cells],
        "threads": [str(cell.limits.threads) for cell in cells],
        "score, %": [_score(cell) for cell in cells],
        "to the largest": [show_gap(cell, cells) for cell in cells],
        "took": [seconds(cell.total_s) for cell in cells],
        "peak": [show_memory(cell.peak_bytes) for cell in cells],
        "answer, p95": [milliseconds(cell.p95_ms("predict_ms")) for cell in cells],
        "learning, p95": [milliseconds(cell.p95_ms("adapt_ms")) for cell in cells],
        "learner": [_size(cell.model_bytes) for cell in cells],
        "": [state(cell, budget) for cell in cells],
    }
    shown = {
        name: values for name, values in columns.items() if len(set(values)) > 1 or name in ALWAYS
    }  # fmt: skip
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)] if cells else []


ALWAYS = ("time", "memory", "score, %", "to the largest", "took", "peak", "")


def _score(cell: Cell) -> str:
    if cell.score is None:
        return "–"
    return f"{cell.score:.1f}" + ("" if cell.ci95 is None else f" ± {cell.ci95:.1f}")


def show_gap(cell: Cell, cells: Sequence[Cell]) -> str:
    """The paired difference to the largest budget that fits, with its interval."""
    largest = largest_of(cells, cell.submission)
    if largest is None or not cell.scored:
        return "–"
    if cell is largest:
        return "largest"
    gap = compare(cell, largest)
    if gap is None:
        return "–"
    return signed(gap.mean) + ("" if gap.ci95 is None else f" ± {gap.ci95:.1f}")


def state(cell: Cell, budget: Budget) -> str:
    """What is special about a budget: why it does not fit, that it was not run, or that it is the one to set."""
    if cell.worst is not None:
        return f"{cell.worst.status.replace('_', ' ')}: {cell.reason}"
    signs = ["as with more memory"] if all(p.status == "inferred" for p in cell.points) else []
    found = budget.recommendation
    if found is not None and (found.submission, found.limits) == (cell.submission, cell.limits):
        signs.insert(0, "recommended")
    if budget.knee == cell.limits and cell.submission == budget.cells[0].submission:
        signs.append("knee")
    return ", ".join(signs)


def seconds(value: float | None) -> str:
    """Seconds for people."""
    return "–" if value is None else f"{value:.1f} s"


def milliseconds(value: float | None) -> str:
    """Milliseconds for people."""
    return "–" if value is None else f"{value:.0f} ms"


def _size(n_bytes: int | None) -> str:
    return "–" if n_bytes is None else f"{n_bytes / 1e6:.0f} MB"
