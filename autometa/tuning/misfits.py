"""The budgets of a grid that do not fit, and the nearest that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autometa.tuning.curve import Cell
from autometa.tuning.prediction import distance


@dataclass(frozen=True)
class Misfit:
    """A budget that does not fit, why, and the nearest one that does."""

    cell: Cell
    nearest: Cell | None


def list_misfits(cells: Sequence[Cell]) -> list[Misfit]:
    """All budgets that do not fit; of those that failed nothing is known."""
    found = []
    for cell in cells:
        if not cell.fits and not cell.failed:
            fitting = [other for other in cells if other.fits and other.submission == cell.submission]
            nearest = min(fitting, key=lambda other: distance(cell.limits, other.limits), default=None)
            found.append(Misfit(cell, nearest))
    return found
