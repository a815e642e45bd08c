"""Which modes a portfolio has, and whether folds are asked, where the memory budget is small."""

from __future__ import annotations

from collections.abc import Sequence

from autometa.backbones import View
from autometa.core.errors import BudgetExhausted
from autometa.evaluation.folds import Fold
from autometa.heads.modes import SIX_MODES, UNFITTED
from autometa.planning.forecast import Forecast
from autometa.planning.memory import FLOAT, FOLD_BYTES, fitting_bytes, metric_bytes

ONE_MODE = ("root",)
"""The best one alone on the development sets, of those that are fitted."""


def learning_bytes(forecast: Forecast, view: View, modes: Sequence[str], folds: int, images: int) -> int:
    """Memory that taking in a view takes in meta-training beside what is there: its features of so many images, its
    metrics, and for a moment more to fit these, or to answer the largest task once."""
    width, task = forecast.width(view), forecast.largest_task
    kept = FLOAT * width * images + metric_bytes(width, modes) // 2
    answering = task.answer_bytes(modes) + 3 * task.px**2 * task.images
    asking = FOLD_BYTES + fitting_bytes(width, modes, folds) if folds else 0
    return kept + max(fitting_bytes(width, modes, 1), answering, asking)


def choose_modes(
    forecast: Forecast, first: View, folds: list[Fold], images: int, *, fitted: bool
) -> tuple[tuple[str, ...], list[Fold]]:
    """The modes of portfolios, and the folds to ask. Where memory is small, the most modes, and the folds or none of
    them, that a portfolio of the first view has memory for, now and in meta-test, learning from so many images.
    `fitted`: whether metrics are fitted. BudgetExhausted where there is memory for no mode."""
    memory = forecast.limits.memory
    if not memory.is_small:
        return SIX_MODES if fitted else UNFITTED, folds
    none: list[Fold] = []
    choices = [(SIX_MODES, folds), (SIX_MODES, none), (ONE_MODE, none)] if fitted else []
    for modes, asked in (*choices, (UNFITTED, none)):
        now = learning_bytes(forecast, first, modes, len(asked), images)
        if memory.fits(now) and forecast.serving_bytes([first], modes) <= memory.total_bytes:
            return modes, asked
    learning = memory.total_bytes - memory.left_bytes() + learning_bytes(forecast, first, UNFITTED, 0, images)
    least = max(forecast.serving_bytes([first], UNFITTED), learning)
    raise BudgetExhausted(
        f"a memory budget of {memory.total_bytes / 1e6:.0f} MB has room for nearest centroids only; "
        f"with {least / 1e6:.0f} MB there would be more"
    )
