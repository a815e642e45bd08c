"""What commands print: on which stream, tables, and what a check has found. Colour is for terminals only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingestion.terminal import go_on_silently


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


class LastingConsole(Console):
    """A console that goes on in silence once nobody reads it, as behind `| head` or in a terminal that was closed:
    the work of a run is not lost for that."""

    def on_broken_pipe(self) -> None:
        """Other consoles end the program."""
        self.quiet = True
        go_on_silently(self.file)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError:  # a terminal that is gone is no broken pipe
            self.on_broken_pipe()


def make_console(*, stderr: bool = False) -> Console:
    """What a command prints on: stdout, or stderr where stdout is for JSON."""
    return LastingConsole(stderr=stderr)


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
