"""Who does pieces of work: units go in, results come out. The same calls for this thread, others, and a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, Protocol, TypeVar

U = TypeVar("U")
R = TypeVar("R")
U_contra = TypeVar("U_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Executor(Protocol[U_contra, R_co]):
    """Does units of work, several at a time where it can. It knows neither what they are for nor what comes next: who
    submits them owns the plan, the journal and the deadline."""

    def submit(self, unit: U_contra) -> None:
        """Have a unit done, now or later."""

    def wait(self, timeout_s: float | None = None) -> R_co:
        """The result of whatever ends first, in any order; one that is lost has a result, too. LookupError where none
        is left, TimeoutError where none ends within so many seconds."""

    def cancel(self) -> None:
        """End the units that go on and forget those that wait. Others may be submitted then."""

    def capacity(self) -> int:
        """How many units are done at a time, as things are now."""

    def close(self) -> None:
        """End the units that go on, and start no others."""


class Sequential(Generic[U, R]):
    """One unit after the other, in the thread that waits, which nothing interrupts: time limits have no effect. What
    `do` raises comes out of `wait`."""

    def __init__(self, do: Callable[[U], R]) -> None:
        self._do, self._left = do, deque[U]()

    def submit(self, unit: U) -> None:
        """Put it at the end of the queue."""
        self._left.append(unit)

    def wait(self, timeout_s: float | None = None) -> R:
        """Do the next one."""
        if not self._left:
            raise LookupError("no unit is left")
        return self._do(self._left.popleft())

    def cancel(self) -> None:
        """Forget those that are left."""
        self._left.clear()

    def capacity(self) -> int:
        """One."""
        return 1

    def close(self) -> None:
        """Forget those that are left."""
        self.cancel()


class Threads(Generic[U, R]):
    """Some units at a time, for a `do` that waits for other processes; `stop` makes it return at once. What `do`
    raises comes out of `wait`."""

    def __init__(self, do: Callable[[U], R], jobs: int, stop: Callable[[], None]) -> None:
        self._do, self._jobs, self._stop = do, jobs, stop
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="executor")
        self._left: set[Future[R]] = set()

    def submit(self, unit: U) -> None:
        """Start it as soon as a thread is free."""
        self._left.add(self._threads.submit(self._do, unit))

    def wait(self, timeout_s: float | None = None) -> R:
        """Whatever ends first."""
        if not self._left:
            raise LookupError("no unit is left")
        done = wait(self._left, timeout_s, FIRST_COMPLETED).done
        if not done:
            raise TimeoutError(f"no unit has ended within {timeout_s} s")
        ended = next(iter(done))
        self._left.remove(ended)
        return ended.result()

    def cancel(self) -> None:
        """Forget those that are left, and end those that run."""
        for future in self._left:
            future.cancel()
        self._left.clear()
        self._stop()

    def capacity(self) -> int:
        """The threads."""
        return self._jobs

    def close(self) -> None:
        """End those that run."""
        self.cancel()
        self._threads.shutdown(cancel_futures=True)
