"""The display of long work: stage, time left, best score so far, trials, memory; then the scores.

On a terminal, bars and a line of status stay at the bottom, and everything else scrolls above them. Elsewhere, all
are plain lines: those of status come when something has changed, and at times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from autometa.core.budget import children_bytes, own_bytes
from autometa.core.progress import QUIET, USUAL, VERBOSE
from autometa.core.progress import Progress as Standing
from autometa.core.repeated import repeated

STYLES = {"line": "dim", "note": "cyan", "failure": "bold red"}
HEARTBEAT_S = 30.0
"""Without a terminal, a line of status comes at least so often."""
MEMORY_EVERY_S = 1.0


class Event(Protocol):
    """An event of ingestion: see `ingestion.Event`."""

    @property
    def kind(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...


class Group(Protocol):
    """Scores of a group of tasks: see `scoring.GroupScore`."""

    @property
    def name(self) -> str: ...

    @property
    def mean(self) -> float: ...

    @property
    def ci95(self) -> float: ...

    @property
    def tasks(self) -> int: ...

    @property
    def missing(self) -> int: ...


class Status:
    """What is known of a run, from its events; every method may be called from any thread. `in_process`: the work is
    done by this process, whose memory counts too; else by those that it has started."""

    def __init__(
        self, budget_s: float, started: float, memory_bytes: int | None = None, *, in_process: bool = False
    ) -> None:
        self.budget_s = budget_s
        self.started = started
        self.memory_bytes = memory_bytes
        self.in_process = in_process
        self.stage = ""
        self.last_line = ""
        self._done = self._total = 0
        self._standing: Standing | None = None
        self._measured: tuple[float, int] = (float("-inf"), 0)

    def hear(self, event: Event) -> bool:
        """Take in an event; whether the score or the number of trials has changed."""
        if event.kind == "stage":
            self.stage, self._done, self._total = event.text, 0, event.total
        elif event.kind == "progress":
            self._done, self._total = event.done, event.total
        elif event.kind == "line":
            standing, before = Standing.parse(event.text), self._standing
            if standing is None:
                self.last_line = event.text
                return False
            self._standing = standing
            return before is None or before.line() != replace(standing, stage=before.stage).line()
        return False

    def spent_s(self) -> float:
        """Seconds since the run has begun."""
        return time.monotonic() - self.started

    def text(self) -> str:
        """One line on all of it; what is not known is left out."""
        steps = f" {self._done} of {self._total}" if self._total else ""
        parts = [f"{self.stage}{steps}" if self.stage else "", f"{self._left_s():.0f} s left"]
        if standing := self._standing:
            parts.append(f"best score {standing.percent()}" if standing.score is not None else "")
            count = standing.trials
            parts.append(f"{count} trial{'' if count == 1 else 's'}" if count else "")
        used = self._used_bytes()
        if used:
            most = f" of {self.memory_bytes / 1e9:.1f}" if self.memory_bytes else ""
            parts.append(f"memory {used / 1e9:.1f}{most} GB")
        return ", ".join(filter(None, parts))

    def _left_s(self) -> float:
        return max(self.budget_s - self.spent_s(), 0.0)

    def _used_bytes(self) -> int:
        """Memory of those who do the work, looked up once in a second."""
        moment, used = self._measured
        if time.monotonic() - moment >= MEMORY_EVERY_S:
            used = children_bytes() + (own_bytes() if self.in_process else 0)
            self._measured = time.monotonic(), used
        return used


class _Spent(ProgressColumn):
    """Seconds used of the budget, or steps done, computed again at every refresh."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def render(self, task: Task) -> Text:
        """The text for one bar."""
        if task.fields["is_budget"]:
            return Text(f"{self._status.spent_s():.0f} of {task.total:.0f} s")
        return Text(f"{task.completed:.0f} of {task.total:.0f}" if task.total else "")


class _Bars(Progress):
    """Bars, and below them the status and the last line of the submission."""

    def __init__(self, status: Status, console: Console, *, show_last: bool) -> None:
        self._status, self._show_last = status, show_last
        columns = (TextColumn("{task.description:<24}"), BarColumn(), _Spent(status))
        super().__init__(*columns, console=console, transient=True)

    def get_renderables(self) -> Iterator[Table | Text]:
        """What is drawn at the bottom of the terminal."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self._status.text(), no_wrap=True, overflow="ellipsis")
        if self._show_last and self._status.last_line:
            yield Text(self._status.last_line, style="dim", no_wrap=True, overflow="ellipsis")


class Display:
    """Shows the events of a run as they come. `level`: QUIET, USUAL or VERBOSE; `memory_bytes`: the budget of memory,
    if it is to be shown; `in_process`: see `Status`."""

    def __init__(
        self,
        console: Console,
        budget_s: float,
        started: float,
        level: int = USUAL,
        *,
        memory_bytes: int | None = None,
        in_process: bool = False,
    ) -> None:
        self._console = console
        self._level = level
        self.status = Status(budget_s, started, memory_bytes, in_process=in_process)
        self._bars = _Bars(self.status, console, show_last=level == USUAL)
        self._budget: TaskID | None = None
        self._stage: TaskID | None = None
        self._lock = threading.Lock()

    @contextmanager
    def live(self) -> Iterator[Display]:
        """Show the status while the block runs."""
        if self._level == QUIET:
            yield self
        elif self._console.is_terminal:
            self._budget = self._bars.add_task("time budget", total=self.status.budget_s, is_budget=True)
            with self._bars:
                yield self
        else:
            with repeated(self.show_status, HEARTBEAT_S):
                yield self

    def show(self, event: Event) -> None:
        """Show one event of ingestion, or `Event`-like, from any thread."""
        with self._lock:
            changed = self.status.hear(event)
            if self._budget is not None:
                self._move_bars(event)
            if self._is_shown(event.kind):
                self._print(event)
            if changed and not self._console.is_terminal and self._level == USUAL:
                self.show_status()

    def show_status(self) -> None:
        """Print the status as a line."""
        if self.status.stage:
            self.line(f"{self.status.spent_s():.0f} s: {self.status.text()}")

    def line(self, text: str) -> None:
        """Print a line that is of no event, unless quiet."""
        if self._level > QUIET:
            self.result(text)

    def result(self, text: str) -> None:
        """Print a line that is shown always."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _is_shown(self, kind: str) -> bool:
        if kind == "line":
            return self._level == VERBOSE
        return kind == "failure" or (kind != "progress" and self._level > QUIET)

    def _print(self, event: Event) -> None:
        style = "bold" if event.kind == "stage" else STYLES.get(event.kind, "")
        self._console.print(event.text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _move_bars(self, event: Event) -> None:
        bars = self._bars
        assert self._budget is not None
        bars.update(self._budget, completed=self.status.spent_s())
        if event.kind == "stage":
            if self._stage is not None:
                bars.remove_task(self._stage)
            self._stage = bars.add_task(event.text, total=event.total or None, is_budget=False)
        elif event.kind == "progress" and self._stage is not None:
            bars.update(self._stage, completed=event.done, total=event.total)


def score_table(overall: Group, datasets: Sequence[Group]) -> Table:
    """Normalised accuracy in percent, with 95 % intervals, per dataset and over all tasks."""
    table = Table(title="Normalised accuracy, % (0 is chance, 100 is perfect)", title_justify="left")
    for heading in ("dataset", "score", "95 % interval", "tasks", "not answered"):
        table.add_column(heading, justify="left" if heading == "dataset" else "right")
    for group in (*datasets, overall):
        if group is overall:
            table.add_section()
        table.add_row(
            escape(group.name),
            f"{100 * group.mean:.1f}",
            f"± {100 * group.ci95:.1f}" if group.tasks > 1 else "–",
            str(group.tasks),
            str(group.missing),
            style="bold" if group is overall else "",
        )
    return table
