"""A cluster of any size as a discrete simulation: one judge, which takes its time for each run, and many machines."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Simulated:
    """What came of it: `makespan_s` from the first run to the end of the last, `utilisation` the share of it in
    which machines did runs, `judge_load` that in which the judge was busy, `half_s` until half of the runs were
    done."""

    makespan_s: float
    utilisation: float
    judge_load: float
    half_s: float


def simulate(
    run_s: Sequence[float], workers: int, judge_s: float, start_s: float = 0.0, ahead: int = 1
) -> Simulated:
    """Runs of these seconds on so many machines, which do one each. The judge sends each run and takes its result,
    `judge_s` together, one after the other; it sends `ahead` more than there are machines. `start_s`: what a machine
    does before its first run."""
    free = [start_s] * workers
    heapq.heapify(free)
    sent_s, ends, events = 0.0, list[float](), list[float]()
    for number, seconds in enumerate(run_s):
        if number >= workers + ahead:  # a place in the queue is free once a run was taken back
            sent_s = max(sent_s, heapq.heappop(events))
        sent_s += judge_s
        began_s = max(heapq.heappop(free), sent_s)
        heapq.heappush(free, began_s + seconds)
        heapq.heappush(events, began_s + seconds)
        ends.append(began_s + seconds)
    makespan_s = max(ends)
    return Simulated(
        makespan_s,
        sum(run_s) / (workers * makespan_s),
        judge_s * len(run_s) / makespan_s,
        sorted(ends)[(len(ends) - 1) // 2],
    )
