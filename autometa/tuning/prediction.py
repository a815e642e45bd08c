"""What a point is expected to take, before it runs, from one that has run: seconds and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autometa.tuning.point import Limits, Point
from ingestion.contract import wants_standby

PHASES = ("prepare", "decode", "meta_train", "meta_test")
"""Of ingestion; the others are stages of the submission, most of them within `meta_train`."""
FIXED_STAGES = ("bootstrap", "pool", "probe", "evidence", "save", "limits")
TRAINED_MARK = "+"
"""In the names of trained copies of backbones."""
TRAINED_SHARE = 0.25
"""Of the time left, that training a copy may take, about."""
RESERVE = 1.3
"""How much more than meta-test takes a run reserves for it."""
CLOSING_S = 3.0
"""Of a budget, that a run leaves unused at its end, about."""
PROCESS_BYTES = 480 * 10**6
"""Of a process that has imported everything."""
BOOTSTRAP_BYTES = 100 * 10**6
"""Of a run that buys nothing, beside its processes, about."""
MOST_OF_CAP = 0.95


@dataclass(frozen=True)
class Expected:
    """Seconds of the whole run and bytes at its peak; None: not known before a point has run."""

    total_s: float | None = None
    peak_bytes: int | None = None


def expect(limits: Limits, done: Sequence[Point]) -> Expected:
    """What a point takes, from the one that is most like it among those of its submission that have run."""
    known = [point for point in done if point.status == "ok" and point.total_s is not None]
    if not known:
        return Expected()
    like = min(known, key=lambda point: distance(limits, point))
    total_s, share = _replay(limits.time_budget_s, like)
    return Expected(total_s, _expect_bytes(limits, like, share))


def distance(one: Limits, other: Limits) -> float:
    """How different two points are: doublings of time and memory, and of threads."""
    pairs = [
        (one.time_budget_s, other.time_budget_s),
        (one.memory_budget_bytes or 0, other.memory_budget_bytes or 0),
        (one.gpu_memory_budget_bytes or 0, other.gpu_memory_budget_bytes or 0),
        (2 * one.threads, 2 * other.threads),
    ]
    return sum(abs(math.log2(a / b)) if a and b else float(bool(a or b)) for a, b in pairs)


def purchases_of(point: Point) -> dict[str, float]:
    """Seconds of what a run has bought, in its order."""
    return {name: s for name, s in point.seconds.items() if name not in (*PHASES, *FIXED_STAGES, "total")}


def _replay(budget_s: float, like: Point) -> tuple[float, float]:
    """Seconds of a run with another budget that buys what there is time for, in the same order; and the share of the
    purchases that it makes. One that buys nothing has nothing to ask the folds about."""
    total_s = like.total_s or 0.0
    bought, evidence_s = purchases_of(like), like.seconds.get("evidence", 0.0)
    test_s = like.seconds.get("meta_test", 0.0)
    spent_s = total_s - sum(bought.values()) - evidence_s
    reserve_s = (RESERVE - 1) * test_s + CLOSING_S
    made = 0
    for name, seconds in bought.items():
        left_s = budget_s - spent_s - reserve_s
        cost_s = min(seconds, TRAINED_SHARE * max(left_s, 0)) if TRAINED_MARK in name else seconds
        if cost_s <= left_s:
            spent_s, made = spent_s + cost_s, made + 1
    if made or not bought:
        spent_s += min(evidence_s, max(budget_s - spent_s - reserve_s, 0.0))
    return min(spent_s, budget_s), made / len(bought) if bought else 1.0


def _expect_bytes(limits: Limits, like: Point, share: float) -> int | None:
    """Processes, and what views take, as far as fewer are bought; without any, what the bootstrap takes."""
    if like.peak_bytes is None:
        return None
    there, here = (PROCESS_BYTES * (2 if _standby(each) else 1) for each in (like, limits))
    views = max(len(like.chosen), 1)
    first = max(like.peak_bytes - there, 0) / views
    expected = here + (first * (1 + (views - 1) * share) if share else min(BOOTSTRAP_BYTES, first))
    cap = limits.memory_budget_bytes
    return int(min(expected, MOST_OF_CAP * cap) if cap else expected)


def _standby(limits: Limits) -> bool:
    return wants_standby(limits.time_budget_s, limits.memory_budget_bytes)
