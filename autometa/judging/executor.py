"""Runs of a judging as units of an executor: units go in, rows come out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from autometa.core.errors import FAILURES, describe
from autometa.executors.executor import Executor, Threads
from autometa.judging.ledger import Row
from autometa.judging.submissions import Unit

Play = Callable[[Unit], Row | None]
"""Does a run; None if somebody stopped it, so that it is to be done again."""
RunExecutor = Executor[Unit, Row | None]
"""Does runs. All units are submitted before the first `wait`."""


def in_threads(play: Play, jobs: int, stop: Callable[[], None]) -> Threads[Unit, Row | None]:
    """Some runs at a time, each in a program of its own; `stop` makes `play` return at once."""
    return Threads(partial(played, play), jobs, stop)


def played(play: Play, unit: Unit) -> Row | None:
    """Do a run; what it raises becomes a failed row, so that it costs no other run."""
    try:
        return play(unit)
    except FAILURES as error:
        return failed_row(unit, f"the run could not be done: {describe(error)}")


def failed_row(unit: Unit, reason: str) -> Row:
    """The row of a run without any result."""
    own = unit.submission
    return Row(
        submission=own.name, seed=unit.seed, digest=own.digest, status="failed", reason=reason, exit_status=1
    )
