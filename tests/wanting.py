"""Tests that are skipped for want of something optional: an engine, weights or a sandbox."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from pathlib import Path

import pytest

REASON = re.compile(r"(is|are) not installed|--sandbox (?P<sandbox>\w+)")


def judge_skip(
    report: pytest.TestReport, nodeid: str, *, all_extras: bool, without: Container[str | None]
) -> None:
    """Where `all_extras` are there, make such a skip a failure, but for the sandboxes in `without`. Else add the
    name of the test to the file `$AUTOMETA_SKIPPED`, if that is set."""
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    wanting = REASON.search(reason)
    if wanting is None:
        return
    if all_extras and wanting["sandbox"] not in without:
        report.outcome, report.longrepr = "failed", f"with --all-extras nothing may be wanting: {reason}"
    elif file := os.environ.get("AUTOMETA_SKIPPED"):
        with Path(file).open("a", encoding="utf-8") as names:
            names.write(f"{nodeid}\n")
