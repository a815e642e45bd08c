"""The budgets of a grid that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

from autometa.tuning.curve import Cell

Costs = tuple[float | None, ...]


def pareto(cells: Sequence[Cell]) -> list[Cell]:
    """Cells than which no other is better in one of score, time, memory and latency of an answer, and as good in the
    others. Two cells are compared only in what was measured of both."""
    rated = [(cell, _costs(cell)) for cell in cells if cell.fits]
    return [
        cell
        for cell, costs in rated
        if not any(_dominates(other, costs) for one, other in rated if one is not cell)
    ]


def _costs(cell: Cell) -> Costs:
    return -(cell.score or 0.0), cell.total_s, cell.peak_bytes, cell.p95_ms("predict_ms")


def _dominates(one: Costs, other: Costs) -> bool:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
