"""The display of a run on the terminal: stage, time budget, output of the submission, scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

STYLES = {"line": "dim", "note": "cyan", "failure": "bold red"}


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


class Finding(Protocol):
    """What a check of the machine found: see `autometa.cli.checks.Finding`."""

    @property
    def area(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def what(self) -> str: ...

    @property
    def remedy(self) -> str: ...


class _Spent(TextColumn):
    """Seconds used of the budget, computed again at every refresh."""

    def __init__(self, started: float) -> None:
        super().__init__("")
        self.started = started

    def render(self, task: Task) -> Text:
        """The text for one bar."""
        if task.fields["is_budget"]:
            return Text(f"{time.monotonic() - self.started:.0f} of {task.total:.0f} s")
        return Text(f"{task.completed:.0f} of {task.total:.0f}" if task.total else "")


class Display:
    """Live progress bars for the budget and the stage; all other output scrolls above them."""

    def __init__(self, console: Console, budget_s: float, started: float, level: int = 0) -> None:
        self._console = console
        self.started = started
        self.level = level
        columns = (TextColumn("{task.description:<24}"), BarColumn(), _Spent(started))
        self._progress = Progress(*columns, console=console, transient=True)
        self._budget = self._progress.add_task("time budget", total=budget_s, is_budget=True)
        self._stage: TaskID | None = None

    @contextmanager
    def live(self) -> Iterator[Display]:
        """Show the bars while the block runs."""
        with self._progress:
            yield self

    def show(self, event: Event) -> None:
        """Show one event of ingestion."""
        self._progress.update(self._budget, completed=time.monotonic() - self.started)
        if event.kind == "stage":
            if self._stage is not None:
                self._progress.remove_task(self._stage)
            self._stage = self._progress.add_task(event.text, total=event.total or None, is_budget=False)
            self._console.print(event.text, style="bold", markup=False, highlight=False)
        elif event.kind == "progress":
            if self._stage is not None:
                self._progress.update(self._stage, completed=event.done, total=event.total)
        else:
            style = STYLES.get(event.kind, "")
            self._console.print(event.text, style=style, markup=False, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Show a line that is of no event."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    result = line


def make_console(*, stderr: bool = False) -> Console:
    """What a command prints on: stdout, or stderr where stdout is for JSON."""
    return Console(stderr=stderr)


def print_columns(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table without lines. Where there is no terminal, each row is one line, however long."""
    if not console.is_terminal:
        every = [headings, *rows]
        widths = [max(len(row[place]) for row in every) for place in range(len(headings))]
        for row in every:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            console.print("  ".join(cells).rstrip(), soft_wrap=True, highlight=False, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def print_finding(console: Console, finding: Finding) -> None:
    """A line on what was found, and one with the remedy."""
    style = {"ok": "green", "note": "yellow", "problem": "bold red"}[finding.state]
    head = Text.assemble((f"{finding.state:<8}", style), f"{finding.area:<10}", finding.what)
    console.print(head, soft_wrap=True, highlight=False)
    if finding.remedy:
        console.print(Text(f"{'':<18}> {finding.remedy}", "bold"), soft_wrap=True, highlight=False)


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
            f"± {100 * group.ci95:.1f}",
            str(group.tasks),
            str(group.missing),
            style="bold" if group is overall else "",
        )
    return table
