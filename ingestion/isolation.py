"""Isolated tasks: each task of meta-test has a process of its own, and nothing of the one before is left.

The model folder is read-only, `logs/` cannot be written, the scratch folder is a new one, and whatever a task left
running is ended before the next begins.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ingestion.disk import remove
from ingestion.errors import SubmissionError
from ingestion.process import LaunchPlan
from ingestion.watch import descendants, end_strays

END_ATTEMPTS, END_LIMIT_S = 20, 10.0


class TaskIsolation:
    """Makes a clean place for each task. `plan`: how its process is started. Processes in `ours` are those of
    ingestion itself; all others that it has started or adopted are the submission's."""

    def __init__(self, plan: LaunchPlan, ours: set[int]) -> None:
        access = plan.access
        readable = (*access.readable, plan.model_dir)
        self.plan = replace(plan, access=replace(access, readable=readable, writable=(), sealed=True))
        self._ours = ours
        self._prices_s: list[float] = []
        self._answering_s = 0.0

    def renew(self) -> None:
        """End what is left of the task before, and of meta-training, and make a new scratch folder. SubmissionError
        where something cannot be ended."""
        if not self._end_others():
            raise SubmissionError("left processes running that cannot be ended", fatal=True)
        scratch = self.plan.access.scratch
        old = scratch.with_name(f"{scratch.name}-{time.monotonic_ns()}")
        scratch.rename(old)  # what cannot be deleted is out of reach, too
        scratch.mkdir()
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(old)], check=False, capture_output=True)
        remove(old)

    def _end_others(self) -> bool:
        """Whether all processes but those of ingestion could be ended, in so many attempts and so much time."""
        latest = time.monotonic() + END_LIMIT_S
        for _ in range(END_ATTEMPTS):
            end_strays(lambda process: process.pid not in self._ours)
            if descendants() <= self._ours:
                return True
            if time.monotonic() >= latest:
                break
        return False

    @contextmanager
    def a_task(self) -> Iterator[None]:
        """Around a task, from the start of its process to its end."""
        began, self._answering_s = time.monotonic(), 0.0
        yield
        self._prices_s.append(time.monotonic() - began - self._answering_s)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around what it takes without isolation, too."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._answering_s = time.monotonic() - began

    def price(self) -> str:
        """What isolation took, for people; empty before the first task."""
        if not self._prices_s:
            return ""
        mean_s = sum(self._prices_s) / len(self._prices_s)
        return f"isolated tasks: {mean_s:.1f} s each for a process of its own, which loads the learner anew"
