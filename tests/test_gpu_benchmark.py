"""The benchmark for GPUs, as far as a machine without one can run it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cases import IMAGES, PX, tiny

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))

gpu: Any = importlib.import_module("gpu")
_arena_results: Any = importlib.import_module("_arena_results")
_learner_report: Any = importlib.import_module("_learner_report")


def made_up(monkeypatch: pytest.MonkeyPatch, **found: Any) -> None:
    """A run has this result."""
    fields: dict[str, Any] = {
        "bundle": "autometa", "dataset": "demo", "budget_s": 45.0, "seed": 0, "settings": "", "exit_status": 0,
        "accuracies": (), "drawn": "", "wall_s": 1.0, "overrun": False, "unanswered": 0, "first_learner_s": None,
        "reason": "", "machine": "",
    }  # fmt: skip
    monkeypatch.setattr(gpu.Runner, "run", lambda *_: _arena_results.Result(**fields | found))


def rows_of_run(folder: Path) -> dict[str, float]:
    return {r["name"]: r["value"] for r in gpu.measure_run("autometa", 45.0, "", "demo/45", folder)}


def test_a_run_that_was_not_scored_has_answered_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up(monkeypatch, exit_status=1, reason="CUDA error")
    assert rows_of_run(tmp_path) == {"gpu/demo/45": 0.0, "gpu/demo/45/unanswered": 3 * gpu.TASKS}
    (row,) = gpu.measure_bundles(["prototypical"], tmp_path)
    assert (
        row["name"] == "gpu/bundle/prototypical"
        and row["value"] == 3 * gpu.TASKS
        and row["note"] == "CUDA error"
    )


def test_a_run_tells_its_score_and_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = (0.9,) * (3 * gpu.TASKS)
    made_up(monkeypatch, accuracies=scores, unanswered=2, first_learner_s=9.0, gpu_peak_bytes=3 * 2**20)
    assert rows_of_run(tmp_path) == {
        "gpu/demo/45": pytest.approx(90),
        "gpu/demo/45/unanswered": 2,
        "gpu/demo/45/first_learner_s": 9.0,
        "gpu/demo/45/peak_memory": 3.0,
    }


def test_the_memory_of_a_batch_is_predicted_by_a_smaller_one() -> None:
    predicted, measured = gpu.measure_pass(tiny("test_resnet"), IMAGES[:16], PX, "cpu")
    assert predicted == pytest.approx(measured, rel=0.25)


def test_a_part_that_fails_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Iterator[Any]:
        yield gpu.row("first", 1.0, "s")
        raise RuntimeError("an illegal memory access")

    file = tmp_path / "rows.json"
    report = _learner_report.Report(file, "a card", resume=False)
    parts = {"bad": fail, "good": lambda: iter([gpu.row("second", 2.0, "s")])}
    assert gpu.measure_parts(parts, ["bad", "good"], report) == ["bad"]
    assert report.names == {"first", "second"}
    assert "bad: failed" in capsys.readouterr().out


@pytest.mark.medium
def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, str(FOLDER / "gpu.py"), "--json", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": ""}, check=False
    )
    assert (done.returncode, done.stdout.strip(), file.read_text()) == (0, "not measured: no GPU", "[]\n")
