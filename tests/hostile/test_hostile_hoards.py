"""Submissions that hide memory and files from what measures them: each task that does so is ended, and no other."""

from __future__ import annotations

import pytest
from hostile_runs import COUNT, Hostile

from ingestion import disk

pytestmark = pytest.mark.medium
TASKS = 6
BUDGET_BYTES = 700_000_000


def test_memory_that_is_hidden_counts(hostile: Hostile) -> None:
    """By forged names, in a file of which one page is mapped, and in a program that hides whose it is."""
    attack = (
        "number = task_number()\nif number <= 4: hoards.HOARDS[number - 1]()\nreturn self.nearest(query_set)"
    )
    top = "import hoards" + COUNT
    hostile.run(
        {},
        {"TOP": top, "PREDICT": attack},
        memory_budget_bytes=BUDGET_BYTES,
        test_tasks_per_dataset=TASKS,
    )
    reasons = hostile.failures()
    assert sorted(reasons) == [1, 2, 3, 4]
    assert all("GB of memory, the budget is 0.70 GB" in reason for reason in reasons.values()), reasons
    assert hostile.runner.accuracy(5) > 0.7


def test_files_that_are_hidden_count(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is large, many, one without a name that is only mapped, one whose path is too long to be asked for;
    folders that change places with links harm nobody."""
    monkeypatch.setattr(disk, "MAX_BYTES", 64 * 2**20)
    monkeypatch.setattr(disk, "MAX_FILES", 300)
    attack = (
        "number = task_number()\nif number <= 5: litter.LITTER[number - 1]()\nreturn self.nearest(query_set)"
    )
    hostile.run({}, {"TOP": "import litter" + COUNT, "PREDICT": attack}, test_tasks_per_dataset=TASKS)
    reasons = hostile.failures()
    assert sorted(reasons) == [1, 2, 3, 4], reasons
    assert "hold more than 0.07 GB" in reasons[1]
    assert "hold more than 300 files" in reasons[2]
    assert "hold more than 0.07 GB" in reasons[3]
    assert "cannot be read (File name too long)" in reasons[4]
    assert hostile.runner.accuracy(5) > 0.7
    assert hostile.runner.accuracy(6) > 0.7
