"""Who does the runs: units go in, rows come out. An executor is two methods and an end, so that others can follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from autometa.core.errors import FAILURES, describe
from autometa.judging.ledger import Row
from autometa.judging.submissions import Unit

Play = Callable[[Unit], Row | None]
"""Does a run; None if somebody stopped it, so that it is to be done again."""


class Executor(Protocol):
    """Does runs. All units are submitted before the first `wait`."""

    def submit(self, unit: Unit) -> None:
        """Have a run done, now or later."""

    def wait(self) -> Row | None:
        """The next run that is done, in any order; None if it was stopped. LookupError where none is left."""

    def close(self) -> None:
        """End the runs that go on, and start no others."""


class Sequential:
    """One run after the other, in the thread that waits."""

    def __init__(self, play: Play) -> None:
        self._play, self._left = play, deque[Unit]()

    def submit(self, unit: Unit) -> None:
        """Put it at the end of the queue."""
        self._left.append(unit)

    def wait(self) -> Row | None:
        """Do the next one."""
        return played(self._play, self._left.popleft())

    def close(self) -> None:
        """Forget those that are left."""
        self._left.clear()


class Pool:
    """Some runs at a time, for a `play` that waits for other processes; `stop` makes it return at once."""

    def __init__(self, play: Play, jobs: int, stop: Callable[[], None]) -> None:
        self._play, self._stop = play, stop
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="judge")
        self._left: set[Future[Row | None]] = set()

    def submit(self, unit: Unit) -> None:
        """Start it as soon as a thread is free."""
        self._left.add(self._threads.submit(played, self._play, unit))

    def wait(self) -> Row | None:
        """Whatever ends first."""
        if not self._left:
            raise LookupError("no run is left")
        done = next(iter(wait(self._left, return_when=FIRST_COMPLETED).done))
        self._left.remove(done)
        return done.result()

    def close(self) -> None:
        """End those that run."""
        self._stop()
        self._threads.shutdown(cancel_futures=True)


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
