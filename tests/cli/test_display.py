"""The display of long work, on a terminal and without one."""

from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from autometa.cli.output import make_console, print_columns
from autometa.core.progress import QUIET, USUAL, VERBOSE, Progress
from autometa.core.repeated import repeated
from autometa.display import Display, Status, score_table
from ingestion import Event
from scoring import GroupScore

STATUS = Event("line", f"[autometa    4.0 s] {Progress('search', 3, 0.613, 0.592, 0.634).line()}")
LINE = Event("line", "[autometa    3.2 s] probe: net [bold]90[/bold] images/s")
EVENTS = (
    Event("note", "sandbox: none [as asked]"),
    Event("stage", "meta-train"),
    LINE,
    STATUS,
    STATUS,
    Event("stage", "meta-test", total=4),
    Event("progress", done=3, total=4),
    Event("failure", "task 4: too late"),
)


def shown(level: int = USUAL, *, terminal: bool = False) -> str:
    """What all events print."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=160, _environ={})
    display = Display(console, 100.0, time.monotonic() - 20, level, memory_bytes=4 * 10**9)
    with display.live():
        for event in EVENTS:
            display.show(event)
        display.line("the end")
        display.result("the result")
    return file.getvalue()


def test_without_a_terminal_there_are_plain_lines() -> None:
    lines = shown().splitlines()
    assert not [c for line in lines for c in line if not c.isprintable()]
    kinds = [
        "sandbox: none [as asked]",
        "meta-train",
        "",
        "meta-test",
        "task 4: too late",
        "the end",
        "the result",
    ]
    assert [line if expected else "" for line, expected in zip(lines, kinds, strict=True)] == kinds
    status = lines[2]
    assert status.startswith("20 s: meta-train, ") and " s left, " in status
    assert "best score 61.3 % (95 %: 59.2 to 63.4), 3 trials" in status


def test_verbose_has_every_line_and_quiet_only_failures_and_results() -> None:
    assert LINE.text in shown(VERBOSE) and STATUS.text in shown(VERBOSE)
    assert shown(QUIET).splitlines() == ["task 4: too late", "the result"]
    assert shown(QUIET, terminal=True).count("\x1b[?25l") == 0  # no live display hides the cursor


def test_on_a_terminal_the_status_stays_at_the_bottom() -> None:
    text = shown(terminal=True)
    assert "\x1b[" in text
    assert "meta-test 3 of 4" in text and "time budget" in text
    assert "best score 61.3 % (95 %: 59.2 to 63.4), 3 trials" in text
    assert "probe: net [bold]90[/bold] images/s" in text
    assert text.rstrip().splitlines()[-1].endswith(("\x1b[?25h", "\x1b[2K")) or "\x1b[?25h" in text


def test_the_status_leaves_out_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.display.children_bytes", lambda: 0)
    status = Status(100.0, time.monotonic() - 200)
    assert status.text() == "0 s left"
    assert not status.hear(Event("stage", "meta-train")) and not status.hear(LINE)
    assert status.hear(Event("line", Progress("training", 0).line()))
    assert status.text() == "meta-train, 0 s left"
    assert status.hear(Event("line", Progress("search", 1).line()))
    assert status.text() == "meta-train, 0 s left, 1 trial"
    assert not status.hear(Event("line", Progress("final", 1).line()))
    assert status.hear(Event("line", Progress("final", 2, 0.5, 0.4, 0.6).line()))
    assert status.text() == "meta-train, 0 s left, best score 50.0 % (95 %: 40.0 to 60.0), 2 trials"


def test_the_status_has_the_memory_of_the_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def measure() -> int:
        asked.append(1)
        return 1_230_000_000

    monkeypatch.setattr("autometa.display.children_bytes", measure)
    status = Status(100.0, time.monotonic())
    assert status.text().endswith("memory 1.2 GB")
    status.memory_bytes = 4 * 10**9
    assert status.text().endswith("memory 1.2 of 4.0 GB")
    assert len(asked) == 1  # it takes time, so it is not done at each refresh
    monkeypatch.setattr("autometa.display.own_bytes", lambda: 2_000_000_000)
    assert Status(100.0, time.monotonic(), in_process=True).text().endswith("memory 3.2 GB")


def test_something_is_done_at_times_until_the_end() -> None:
    done = threading.Event()
    with repeated(done.set, 0.001):
        assert done.wait(60)
    done.clear()
    with repeated(done.set, 3600):
        pass
    assert not done.is_set()


def test_tables_have_a_line_for_each_row_where_there_is_no_terminal() -> None:
    rows = [("one", "x" * 300), ("three", "[red]")]
    file = io.StringIO()
    print_columns(Console(file=file), ("name", "what"), rows)
    assert file.getvalue().splitlines() == ["name   what", "one    " + "x" * 300, "three  [red]"]
    file = io.StringIO()
    print_columns(Console(file=file, force_terminal=True, width=40, _environ={}), ("name", "what"), rows)
    assert "\x1b[1m" in file.getvalue() and file.getvalue().count("x") == 300


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich is concerned
    console = make_console()
    with console.capture() as captured:
        console.print("text", style="red")
    assert captured.get() == "text\n"
    assert make_console(stderr=True).stderr


def test_scores_are_shown_with_markup_of_names_as_text() -> None:
    group = GroupScore("[bold]one", 0.5, 0.1, 4, 1, {})
    file = io.StringIO()
    Console(file=file, width=100).print(score_table(group, [group]))
    assert "[bold]one" in file.getvalue() and "± 10.0" in file.getvalue()
