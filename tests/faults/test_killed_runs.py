"""Real runs that are killed at moments drawn at random, then resumed: nothing is lost but time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from scoring import ScoringSettings, score
from scoring.errors import TruthError

ROOT = Path(__file__).parents[2]
BUDGET_S = 25
LONG_S = 600
"""Of a run that is ended long before: how many purchases fit has no effect."""
KILLS = 5
TASKS = 9
MOMENTS_S = (1.0, 13.0)


def start(output: Path, budget_s: int = BUDGET_S) -> subprocess.Popen[str]:
    command = [sys.executable, "run_local.py", "--verbose", "--output", str(output), "--resume"]
    command += ["--dataset", str(ROOT / "examples" / "demo" / "LETTERS")]
    command += ["--time-budget", f"{budget_s}s", "--tasks-per-dataset", str(TASKS), "--query-per-class", "5"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def submission_of(pid: int) -> list[psutil.Process]:
    """The submission's processes, but for what confines them."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            command = child.cmdline()
        except (psutil.ZombieProcess, psutil.NoSuchProcess):
            continue
        if "ingestion.child" in command and command[0] != "bwrap":
            found.append(child)
    return found


def scores(folder: Path) -> dict[str, float]:
    content: dict[str, float] = json.loads((folder / "scores.json").read_text())
    return content


def ends_well(output: Path, budget_s: int = BUDGET_S, purchases: int | None = None) -> str:
    """Resume the run for good; every task is answered, in time. With `purchases`, its search is ended by a signal
    once so many are in the journal. What it showed."""
    process = start(output, budget_s)
    while purchases is not None and process.poll() is None:
        if len(bought(output)) >= purchases:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.05)
    shown, _ = process.communicate(timeout=180)
    assert process.returncode == 0, shown
    result = scores(output / "scoring")
    assert result["tasks"] == TASKS and result["tasks_missing"] == 0, shown
    assert result["duration_s"] <= budget_s, shown
    assert result["normalized_accuracy"] > 0.4, shown
    return shown


def moments(seed: int) -> list[float]:
    return [random.Random(f"{seed} {number}").uniform(*MOMENTS_S) for number in range(KILLS)]


def scorable(output: Path, folder: Path) -> bool:
    """Whether the truth was on disk at the kill; then what is there can be scored."""
    try:
        settings = ScoringSettings(results_dir=output / "ingestion", output_dir_scoring=folder)
        summary = score(settings)
    except TruthError:
        return False
    assert summary.overall.tasks == TASKS
    return True


def bought(output: Path) -> list[dict[str, Any]]:
    """Receipts of purchases, of all runs in a folder."""
    file = output / "ingestion" / "model" / "journal.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be half
    return [row for row in rows if "purchase" in row]  # others are about stages


def measured(output: Path) -> list[dict[str, Any]]:
    """Those whose gain was measured."""
    return [row for row in bought(output) if row["gain"] is not None]


def kill_in_the_search(output: Path) -> None:
    """Start the run once more and kill it as soon as the gain of a purchase was measured."""
    model = output / "ingestion" / "model"
    known, process = len(measured(output)), start(output, LONG_S)
    while process.poll() is None:
        learner = (model / "learner.json").exists() and json.loads((model / "learner.json").read_text())
        if learner and learner["validation"]["stage"] != "bootstrap" and len(measured(output)) > known:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
            return
        time.sleep(0.05)
    shown, _ = process.communicate(timeout=30)
    raise AssertionError(f"no gain was measured in {LONG_S} s:\n{shown}")


@pytest.mark.slow
def test_a_run_whose_whole_process_group_is_killed_goes_on(tmp_path: Path) -> None:
    output, killed, scored = tmp_path / "out", 0, 0
    for number, moment_s in enumerate(moments(seed=98)):
        process = start(output)
        time.sleep(moment_s)
        submission = submission_of(process.pid) if process.poll() is None else []
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate(timeout=30)
        assert not psutil.wait_procs(submission, timeout=5)[1]  # none is left behind
        if (output / "ingestion").exists():
            scored += scorable(output, tmp_path / f"scoring-{number}")
    assert scored and killed >= KILLS - 1
    kill_in_the_search(output)
    before = bought(output)
    shown = ends_well(output, LONG_S, len(before) + 1)
    assert "serves at once" in shown
    after = bought(output)[len(before) :]
    assert "purchases of earlier runs are known" in shown
    assert after and after[0]["kind"] == "view" and after[0]["gain"] is None  # the first view, once more


@pytest.mark.slow
def test_a_run_whose_submission_is_killed_is_scored_and_goes_on(tmp_path: Path) -> None:
    output, killed = tmp_path / "out", 0
    for moment_s in moments(seed=99):
        process = start(output)
        time.sleep(moment_s)
        victims = submission_of(process.pid) if process.poll() is None else []
        for victim in victims:
            victim.kill()
        shown, _ = process.communicate(timeout=120)
        killed += bool(victims)
        result = scores(output / "scoring")
        assert result["tasks"] == TASKS
        assert result["duration_s"] <= BUDGET_S, shown
        assert process.returncode == int(result["tasks_missing"] == TASKS), shown
    assert killed >= KILLS - 1
    ends_well(output)
