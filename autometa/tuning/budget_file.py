"""`budget.json`: the whole answer of a grid, for programs and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autometa.tuning.curve import (
    Cell,
    find_knee,
    largest_of,
    list_steps,
    make_cells,
    smallest_for,
    target_of,
)
from autometa.tuning.grid import Dropped, Place, describe
from autometa.tuning.misfits import list_misfits
from autometa.tuning.pareto import pareto
from autometa.tuning.point import Limits, Point
from autometa.tuning.predicted import Prediction, describe_prediction
from autometa.tuning.recommend import Recommendation


class Left(BaseModel):
    """A point that was asked for and did not run, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place
    reason: str


class GainPerDoubling(BaseModel):
    """Points of accuracy for twice the time, from one budget to the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    submission: str
    start: Limits
    end: Limits
    gain: float
    ci95: float | None
    more_is_no_better: bool


class DoesNotFit(BaseModel):
    """A budget that does not fit, why, and the nearest one that does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    submission: str
    limits: Limits
    reason: str
    nearest: Limits | None


class Budget(BaseModel):
    """What `budget.json` holds. Scores in per cent, times in seconds. `spent_s`: what all points took here, and
    `largest_s` what the largest of them took; `cores`: processors that may be used here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["autometa-budget-1"] = "autometa-budget-1"
    dataset: str
    cores: int
    target_score: str | None = None
    target: float | None = None
    points: tuple[Point, ...] = ()
    left_out: tuple[Left, ...] = ()
    largest: Limits | None = None
    knee: Limits | None = None
    smallest_for_target: Limits | None = None
    pareto: tuple[Limits, ...] = ()
    gains: tuple[GainPerDoubling, ...] = ()
    not_better: tuple[str, ...] = ()
    do_not_fit: tuple[DoesNotFit, ...] = ()
    recommendation: Recommendation | None = None
    predicted: tuple[Prediction, ...] = ()
    spent_s: float | None = None
    largest_s: float | None = None

    @property
    def cells(self) -> list[Cell]:
        """Points by budget."""
        return make_cells(self.points)


def summarise(
    points: Sequence[Point], left: Sequence[Dropped], *, dataset: str, cores: int, target: str | None
) -> Budget:
    """Everything that follows from the points, but for what to recommend. The knee, the
    largest and the smallest for the target are those of the first submission."""
    cells = make_cells(points)
    first = cells[0].submission if cells else ""
    own = [cell for cell in cells if cell.submission == first]
    score = target_of(target, cells) if target else None
    reached = smallest_for(own, score) if score is not None else None
    steps, largest, knee = list_steps(cells), largest_of(own, first), find_knee(own)
    return Budget(
        dataset=dataset,
        cores=cores,
        target_score=target,
        target=score,
        points=tuple(points),
        left_out=tuple(Left(place=each.place, reason=each.reason) for each in left),
        largest=largest.limits if largest else None,
        knee=knee.limits if knee else None,
        smallest_for_target=reached.limits if reached else None,
        pareto=tuple(cell.limits for cell in pareto(own)),
        gains=tuple(
            GainPerDoubling(
                submission=step.start.submission,
                start=step.start.limits,
                end=step.end.limits,
                gain=step.per_doubling.mean,
                ci95=step.per_doubling.ci95,
                more_is_no_better=step.is_useless,
            )
            for step in steps
        ),
        not_better=tuple(f"{step}{_of(step.start.submission, first)}" for step in steps if step.is_useless),
        do_not_fit=tuple(
            DoesNotFit(
                submission=each.cell.submission,
                limits=each.cell.limits,
                reason=each.cell.reason,
                nearest=each.nearest.limits if each.nearest else None,
            )
            for each in list_misfits(cells)
        ),
    )


def _of(submission: str, first: str) -> str:
    """Whose a sentence is, where it is not the first submission."""
    return "" if submission == first else f" ({submission})"


def tell(budget: Budget) -> list[str]:
    """What the grid says, in sentences, and what it says of other machines, in lines."""
    return [*tell_measured(budget), *tell_predicted(budget)]


def tell_predicted(budget: Budget) -> list[str]:
    """The predicted curves, each in some lines that say what they are."""
    return [line for prediction in budget.predicted for line in describe_prediction(prediction)]


def tell_measured(budget: Budget) -> list[str]:
    """What the grid says of this machine, in sentences."""
    lines, cells = list[str](), budget.cells
    first = cells[0].submission if cells else ""
    owner = f" of {first}" if any(cell.submission != first for cell in cells) else ""
    if budget.knee is not None:
        lines.append(f"More time pays less{owner and f' to {first}'} from here on: {describe(budget.knee)}.")
    if budget.target is not None:
        reached = budget.smallest_for_target
        told = (
            f"the smallest budget{owner} that reaches it is {describe(reached)}"
            if reached
            else f"no budget{owner} reaches it"
        )
        lines.append(f"Target {budget.target:.1f} % ({budget.target_score}): {told}.")
    lines += [f"{line}." for line in budget.not_better]
    for each in budget.do_not_fit:
        nearest = f"; the nearest that fits is {describe(each.nearest)}" if each.nearest else ""
        what = f"{describe(each.limits)}{_of(each.submission, first)}"
        lines.append(f"Does not fit: {what}: {each.reason}{nearest}.")
    lines += [
        f"Failed: {describe(cell.limits)}{_of(cell.submission, first)}: {cell.reason}; --resume tries it again."
        for cell in cells
        if cell.failed
    ]
    return lines + _tell_decoding(budget)


def _tell_decoding(budget: Budget) -> list[str]:
    """That only the first point has paid for decoding, and what."""
    decode_s = budget.points[0].seconds.get("decode") if budget.points else None
    if decode_s is None:
        return []
    return [
        f"Images were decoded once: the first point took {decode_s:.1f} s for it, later ones and the run alone found "
        "them in the cache."
    ]
