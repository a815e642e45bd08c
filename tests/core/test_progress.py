"""The line of status: what is reported is what is read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autometa.core.budget import children_bytes
from autometa.core.progress import Progress


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (
            Progress("search", 14, 0.613, 0.592, 0.634),
            "status: search, 14 trials, best score 61.3 % (95 %: 59.2 to 63.4)",
        ),
        (Progress("final", 1), "status: final, 1 trial, best score unknown"),
        (
            Progress("second stage", 0, -0.021, -0.1, 1.0),
            "status: second stage, 0 trials, best score -2.1 % (95 %: -10.0 to 100.0)",
        ),
    ],
)
def test_the_line_says_all_and_is_read_again(progress: Progress, line: str) -> None:
    assert progress.line() == line
    for printed in (line, f"[autometa   12.3 s] {line}"):
        read = Progress.parse(printed)
        assert read is not None and read.line() == line
        assert (read.stage, read.trials) == (progress.stage, progress.trials)
        assert (read.score is None) == (progress.score is None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "probe: net 90 images/s",
        "status: search",
        "status: search, 14 trials, best score high",
        "status: search, 14 trials, best score 61.3 % (95 %: 59.2 to 63.4), or so",
        "status: search, 99999999999 trials, best score unknown",
    ],
)
def test_other_lines_are_no_status(line: str) -> None:
    assert Progress.parse(line) is None


def test_the_memory_of_children_is_that_of_all_that_were_started() -> None:
    before = children_bytes()
    held = 64 * 2**20
    code = f"held = bytearray(b'1') * {held}; print('ready', flush=True); input()"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        used = children_bytes()
        process.communicate("\n")
    assert held <= used - before < 4 * held
    assert children_bytes() <= before + 2**20
