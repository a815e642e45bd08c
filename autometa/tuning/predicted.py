"""Predicting what budgets are worth on a machine that is not here, from points that were measured here.

The seconds of a point are scaled stage by stage, each by how much faster its kind of work is on the other machine.
Their sum is what the same work takes there, and its score is what that budget buys there. Between two measured points
the score is interpolated over the logarithm of the time; beyond the least and the largest nothing is said.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autometa.core.units import show_bytes, show_duration
from autometa.tuning.point import Point
from autometa.tuning.profiles import Kind, Profile, Speeds

Mix = Mapping[Kind, float]

STAGES: dict[str, Mix] = {
    "start": {"start": 1.0},
    "import": {"start": 1.0},
    "prepare": {"disk": 1.0},
    "decode": {"disk": 1.0},
    "pool": {"disk": 1.0},
    "bootstrap": {"start": 0.5, "embedding": 0.5},
    "probe": {"embedding": 1.0},
    "embed": {"embedding": 1.0},
    "search": {"heads": 0.5, "embedding": 0.5},
    "meta_train": {"heads": 0.3, "embedding": 0.7},
    "heads": {"heads": 1.0},
    "evidence": {"heads": 1.0},
    "save": {"heads": 0.5, "disk": 0.5},
    "meta_test": {"heads": 0.5, "embedding": 0.5},
    "score": {"heads": 1.0},
    "close": {"heads": 1.0},
}
"""What stages consist of. Halves and the like are guesses."""
OUTER = frozenset(("start", "import", "prepare", "decode", "meta_train", "meta_test", "score", "close"))
"""Stages of a run; all others lie within meta-training."""
VIEW: Mix = {"heads": 0.2, "embedding": 0.8}
"""Of a purchase, which bears the name of a view: images are embedded, then metrics are fitted. A guess."""
REST: Mix = {"heads": 1.0}
"""Of time that belongs to no stage: work in Python."""
TOTAL = "total"
EDGE = 1.01
"""A budget that is beyond the measured ones by less than this is as good as the last of them."""


class PredictedPoint(BaseModel):
    """What a budget is expected to buy on the other machine. `score` and `ci95` in per cent. `worth_s`: the budget
    that buys as much here. `from_s`: the budgets of the measured points on either side. `outside`: nothing is said,
    since no point was measured there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_budget_s: float
    status: Literal["predicted", "outside"]
    reason: str = ""
    score: float | None = None
    ci95: float | None = None
    worth_s: float | None = None
    from_s: tuple[float, float] | None = None


class Prediction(BaseModel):
    """The predicted curve of a machine. `faster`: how many times as fast each kind of work is there. `notes` say what
    it rests on, and which measured points do not fit there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile
    here: Profile
    faster: Speeds
    points: tuple[PredictedPoint, ...]
    notes: tuple[str, ...]


class Knot(BaseModel):
    """A measured budget: `there_s` is what the same work takes on the other machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    here_s: float
    there_s: float
    score: float
    ci95: float | None


def predict_curve(
    points: Sequence[Point], profile: Profile, here: Profile, budgets_s: Iterable[float] | None = None
) -> Prediction:
    """What budgets are worth on the machine of `profile`, from points that were measured on that of `here`. By
    default the budgets are those of the points."""
    faster = profile.faster_than(here)
    fitting, notes = _those_that_fit(points, profile)
    knots = measure_knots(fitting, profile, faster)
    asked = sorted(set(budgets_s) if budgets_s is not None else {point.time_budget_s for point in points})
    return Prediction(
        profile=profile,
        here=here,
        faster=faster,
        points=tuple(predict_point(knots, budget_s) for budget_s in asked),
        notes=(*_about(profile, here), *notes),
    )


def describe_prediction(prediction: Prediction) -> list[str]:
    """A prediction in lines for people: what it is, the points, and what it rests on."""
    profile = prediction.profile
    speeds = ", ".join(f"{kind} {value:.2g}" for kind, value in prediction.faster)
    machine = f" ({profile.machine})" if profile.machine else ""
    lines = [f"prediction for {profile.name}{machine}; times as fast as here: {speeds}"]
    for point in prediction.points:
        budget = show_duration(point.time_budget_s)
        if point.score is None or point.worth_s is None:
            lines.append(f"  {budget:>6}  {point.reason}")
            continue
        width = "" if point.ci95 is None else f" ± {point.ci95:.1f}"
        lines.append(
            f"  {budget:>6}  {point.score:.1f}{width} % predicted, what {point.worth_s:.0f} s buy here"
        )
    return [*lines, *(f"  {note}" for note in prediction.notes)]


def stage_mix(stage: str) -> Mix:
    """The kinds of work that a stage consists of, with their shares, which add up to one."""
    if stage in STAGES:
        return STAGES[stage]
    known = [name for name in STAGES if stage.startswith(name)]
    if known:
        return STAGES[max(known, key=len)]
    return VIEW if "@" in stage else REST


def scale_seconds(point: Point, faster: Speeds, gpu_start_s: float = 0.0) -> float:
    """Seconds that the work of a point takes where each kind of work is so many times as fast. What belongs to no
    stage counts as work in Python, and what is left of the budget stays as it is: the reserve that a run keeps."""
    parts = _each_once(point.seconds)
    rest_s = max(point.seconds.get(TOTAL, 0.0) - sum(parts.values()), 0.0)
    spent_s = gpu_start_s + rest_s / faster.heads
    for stage, seconds in parts.items():
        spent_s += sum(share * seconds / getattr(faster, kind) for kind, share in stage_mix(stage).items())
    return spent_s + max(point.time_budget_s - sum(parts.values()) - rest_s, 0.0)


def _each_once(seconds: Mapping[str, float]) -> dict[str, float]:
    """The stages without the total. Where those within meta-training are told, what is left of it is the start of its
    process."""
    parts = {stage: spent_s for stage, spent_s in seconds.items() if stage != TOTAL}
    inner_s = sum(spent_s for stage, spent_s in parts.items() if stage not in OUTER)
    if inner_s and "meta_train" in parts:
        start_s = max(parts.pop("meta_train") - inner_s, 0.0)
        parts["start"] = parts.get("start", 0.0) + start_s
    return parts


def measure_knots(points: Sequence[Point], profile: Profile, faster: Speeds) -> list[Knot]:
    """A knot for each time budget, by ascending time; repeats become one by their means."""
    groups: dict[float, list[Point]] = defaultdict(list)
    for point in points:
        groups[point.time_budget_s].append(point)
    gpu_start_s = profile.gpu_start_s if profile.gpu_memory is not None else 0.0
    knots = []
    for budget_s, group in groups.items():
        widths = [point.ci95 for point in group if point.ci95 is not None]
        there_s = fmean(scale_seconds(point, faster, gpu_start_s) for point in group)
        score = fmean(point.score for point in group if point.score is not None)
        knots.append(Knot(here_s=budget_s, there_s=there_s, score=score, ci95=max(widths, default=None)))
    return sorted(knots, key=lambda knot: knot.there_s)


def predict_point(knots: Sequence[Knot], budget_s: float) -> PredictedPoint:
    """What a budget buys there, between the knots on either side of it."""
    if not knots:
        return _outside(budget_s, "no measured point fits on this machine")
    first, last = knots[0], knots[-1]
    if budget_s * EDGE < first.there_s:
        least = show_duration(round(first.there_s))
        return _outside(budget_s, f"outside what was measured: the least of it takes {least} there")
    if budget_s > last.there_s * EDGE:
        most = show_duration(round(last.there_s))
        return _outside(budget_s, f"outside what was measured: the most of it takes {most} there")
    after = next((place for place, knot in enumerate(knots) if budget_s <= knot.there_s), len(knots) - 1)
    low, high = knots[max(after - 1, 0)], knots[after]
    share = _log_share(low.there_s, high.there_s, budget_s)
    between = abs(high.score - low.score) * min(share, 1 - share)
    return PredictedPoint(
        time_budget_s=budget_s,
        status="predicted",
        score=(1 - share) * low.score + share * high.score,
        ci95=_widened(low.ci95, high.ci95, share, between),
        worth_s=low.here_s ** (1 - share) * high.here_s**share,
        from_s=(low.here_s, high.here_s),
    )


def _log_share(low_s: float, high_s: float, budget_s: float) -> float:
    """Where a budget lies between two times, from 0 to 1, on a logarithmic scale."""
    if high_s <= low_s:
        return 0.0
    return min(max(math.log(budget_s / low_s) / math.log(high_s / low_s), 0.0), 1.0)


def _widened(low: float | None, high: float | None, share: float, between: float) -> float | None:
    """The half-width in between: that of the knots, and how much further the score of the nearer one may reach."""
    if low is None or high is None:
        return None
    return math.hypot((1 - share) * low + share * high, between)


def _outside(budget_s: float, reason: str) -> PredictedPoint:
    return PredictedPoint(time_budget_s=budget_s, status="outside", reason=reason)


def _those_that_fit(points: Sequence[Point], profile: Profile) -> tuple[list[Point], list[str]]:
    """The points with a score whose memory the machine has, of the most threads and the largest memory budgets among
    them, and notes."""
    scored = [point for point in points if point.has_score and TOTAL in point.seconds]
    fitting, notes = [], []
    for point in scored:
        if lacking := _lacks(point, profile):
            notes.append(f"does not fit: {show_duration(point.time_budget_s)} {lacking}")
        else:
            fitting.append(point)
    threads = max((point.threads for point in fitting), default=1)
    if any(point.threads != threads for point in fitting):
        notes.append(f"of several numbers of threads, the points with {threads} are used")
        fitting = [point for point in fitting if point.threads == threads]
    for field, kind in (("memory_budget_bytes", "memory"), ("gpu_memory_budget_bytes", "GPU memory")):
        budgets = {getattr(point, field) for point in fitting}
        if len(budgets) > 1:
            largest = None if None in budgets else max(budgets)
            told = f"without a {kind} budget" if largest is None else f"with {show_bytes(largest)}"
            notes.append(f"of several {kind} budgets, the points {told} are used")
            fitting = [point for point in fitting if getattr(point, field) == largest]
    return fitting, notes


def _lacks(point: Point, profile: Profile) -> str:
    """Why a point does not fit a machine; empty where it does."""
    if point.peak_bytes is not None and point.peak_bytes > profile.memory:
        return (
            f"took {show_bytes(point.peak_bytes)} of memory, {profile.name} has {show_bytes(profile.memory)}"
        )
    gpu = profile.gpu_memory
    if gpu is not None and point.gpu_peak_bytes is not None and point.gpu_peak_bytes > gpu:
        return f"took {show_bytes(point.gpu_peak_bytes)} of GPU memory, {profile.name} has {show_bytes(gpu)}"
    return ""


def _about(profile: Profile, here: Profile) -> list[str]:
    """What a prediction for a machine rests on."""
    source = "from published figures and guesses" if profile.is_stated else "measured there in a few seconds"
    lines = [f"a prediction: nothing was run on {profile.name}; its speeds are {source}"]
    if profile.guessed:
        lines.append(f"guessed: {', '.join(profile.guessed)}")
    if profile.gpu_memory is not None and here.gpu_memory is None:
        lines.append(
            "measured on a CPU: of the GPU only the speed of networks and its start are taken into account"
        )
    return [*lines, *profile.notes]
