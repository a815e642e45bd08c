"""Skips for want of something optional: failures where all extras are there, else noted for a later run."""

from __future__ import annotations

from pathlib import Path

import pytest
from wanting import judge_skip

SANDBOX = "Skipped: --sandbox landlock: no Landlock here; use --sandbox auto"


@pytest.fixture(autouse=True)
def nobody_collects_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI does, of the tests that these reports are not of."""
    monkeypatch.delenv("AUTOMETA_SKIPPED", raising=False)


def report_of(reason: str) -> pytest.TestReport:
    return pytest.TestReport("test_x.py::x", ("", 0, ""), {}, "skipped", ("test_x.py", 1, reason), "call")


@pytest.mark.parametrize("reason", ["Skipped: openvino is not installed", SANDBOX])
def test_with_all_extras_nothing_may_be_wanting(reason: str) -> None:
    report = report_of(reason)
    judge_skip(report, "x", all_extras=True, without=["bubblewrap"])
    assert report.failed
    assert reason in str(report.longrepr)


def test_other_skips_and_sandboxes_that_cannot_be_stay(tmp_path: Path) -> None:
    for reason, without in (("Skipped: reptile has no queries", []), (SANDBOX, ["landlock"])):
        report = report_of(reason)
        judge_skip(report, "x", all_extras=True, without=without)
        assert report.skipped


def test_without_extras_names_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "skipped"
    monkeypatch.setenv("AUTOMETA_SKIPPED", str(noted))
    for reason in ("Skipped: onnx is not installed", "Skipped: reptile has no queries", SANDBOX):
        report = report_of(reason)
        judge_skip(report, f"test of {reason[9:14]}", all_extras=False, without=[])
        assert report.skipped
    assert noted.read_text() == "test of onnx \ntest of --san\n"
