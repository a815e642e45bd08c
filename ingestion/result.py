"""What came of a run: how long its stages took, and which tasks were not done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class IngestionResult:
    """The result of a run. `failures`: task number → why it was not done; `seconds` per stage."""

    output_dir: Path
    tasks: int
    failures: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the run finished and at least one task was answered."""
        return not self.interrupted and len(self.failures) < self.tasks

    def fail(self, tasks: Iterator[int] | range | set[int], reason: str) -> None:
        """Record that these tasks were not done."""
        self.failures.update(dict.fromkeys(tasks, reason))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the seconds of a stage, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = time.monotonic() - began
