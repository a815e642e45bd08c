"""SIGKILL of ingestion while it writes, and of the process that stands by for meta-test."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psutil
import pytest
from disks import Snapshots
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle
from waiting_bundle import wait_between

from ingestion import IngestionSettings, run
from ingestion.result import IngestionResult
from scoring import ScoringSettings, score

KEEPS = """
    file = Path(os.environ["METADL_MODEL_DIR"]) / "learned"
    print("learned before" if file.exists() else "learns")
    file.touch()
    return MyLearner()
"""


def resumed(runner: Runner, bundle: Path, output: Path) -> IngestionResult:
    """Go on with the run in a folder."""
    settings = IngestionSettings(
        input_data_dir=runner.dataset,
        submission=bundle,
        output_dir=output,
        image_size=16,
        test_tasks_per_dataset=TASKS,
        query_images_per_class=4,
        sandbox="none",
    )
    runner.events.clear()
    return run(settings, runner.events.append, resume=True)


@pytest.mark.medium
def test_a_run_killed_while_it_writes_goes_on_and_is_scored(
    runner: Runner, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, states = make_bundle(meta_fit=KEEPS), Snapshots(runner.output, tmp_path / "states")
    with states.taking(monkeypatch):
        runner(bundle)
    truth = runner.truth()
    by_moment = dict(zip(states.moments, sorted(states.store.iterdir()), strict=True))
    assert {f"half task_{number}.predict" for number in range(1, TASKS + 1)} < set(by_moment)
    assert {"half run.json", "half truth.json", "half ingestion.json"} < set(by_moment)
    output = by_moment["half task_2.predict"]
    assert not (output / "ingestion.json").exists()
    result = resumed(runner, bundle, output)
    assert result.succeeded and not result.failures
    assert "learned before" in runner.texts("line")
    assert json.loads((output / "truth.json").read_text()) == truth
    assert not list(output.rglob(".*"))
    summary = score(ScoringSettings(results_dir=output, output_dir_scoring=tmp_path / "scores"))
    assert summary.overall.tasks == TASKS and summary.overall.mean > 0.4


@pytest.mark.medium
def test_a_process_that_stands_by_and_is_killed_is_started_again(
    runner: Runner, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    killed = []

    def kill() -> None:
        while not started.exists():
            threading.Event().wait(0.02)
        children = [p for p in psutil.Process().children(recursive=True) if "ingestion.child" in p.cmdline()]
        standing_by = min(children, key=lambda process: process.create_time())
        assert len(children) == 2
        standing_by.kill()
        killed.append(standing_by.pid)
        ended.touch()

    thread = threading.Thread(target=kill)
    thread.start()
    result = runner(make_bundle(meta_fit=wait_between(started, ended)), time_budget_s=500)
    thread.join()
    assert killed and result.succeeded and not result.failures
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1))
    assert "killed by signal 9" in runner.texts("failure") and "starting again" in runner.texts("failure")
