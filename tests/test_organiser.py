"""The benchmarks of scale: slopes of what is held, and whether a ledger tells of every run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from autometa.judging.ledger import Row
from autometa.judging.outcome import read_outcome

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def flatness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_flatness")


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_organiser_plan")


def test_growth_is_told_from_noise_and_from_the_warm_up(flatness: ModuleType) -> None:
    steps = np.arange(1, 1001)
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    warm = 300 * np.minimum(steps / 100, 1)  # imports, in the first tenth
    flat = flatness.Verdict.of(steps, warm + noise)
    assert abs(flat.slope.value) < 0.001 and not flat.grows(1000, 8.0)
    growing = flatness.Verdict.of(steps, warm + noise + 0.02 * steps)
    assert growing.slope.value == pytest.approx(0.02, abs=2 * growing.slope.ci95)
    assert growing.grows(1000, 8.0) and not growing.grows(1000, 30.0)
    assert growing.last - growing.first == pytest.approx(16, abs=3)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [5.0] * 40])
def test_few_or_equal_samples_are_no_growth(flatness: ModuleType, values: list[float]) -> None:
    assert not flatness.Verdict.of(range(len(values)), values).grows(1000, 0.0)


def test_a_lost_run_is_one_without_a_row_or_with_one_that_does_not_tell(
    plan: ModuleType, tmp_path: Path
) -> None:
    made = plan.Plan.write(tmp_path, 10, 3, 5)
    assert len(made.keys) == 30 and len(made.fails) == 7

    def row(key: tuple[str, int]) -> Row:
        kind = made.fails.get(key, "")
        failed = kind in plan.WHOLE
        return Row(
            submission=key[0],
            seed=key[1],
            digest="",
            status="failed" if failed else "ok",
            reason=kind,
            accuracies=() if failed else (0.5,),
            unanswered=int(bool(kind) and not failed),
        )

    rows = {key: row(key) for key in made.keys}
    assert made.count_lost(rows) == 0 and plan.count_differing(rows, rows) == 0
    good = next(key for key in made.keys if key not in made.fails)
    bad = next(key for key, kind in made.fails.items() if kind == "hang")
    rest = {key: value for key, value in rows.items() if key != good}
    assert made.count_lost(rest) == 1 and plan.count_differing(rows, rest) == 1
    silent = rows | {bad: rows[bad].model_copy(update={"reason": ""})}
    assert made.count_lost(silent) == 1
    slower = rows | {good: rows[good].model_copy(update={"wall_s": 9.0})}
    assert plan.count_differing(rows, slower) == 0


def test_a_stand_in_plays_the_same_tasks_and_leaves_the_files_of_a_run(tmp_path: Path) -> None:
    bundle, output = tmp_path / "team", tmp_path / "out"
    bundle.mkdir()
    (bundle / "skill").write_text("1.0")
    (bundle / "fails.json").write_text(json.dumps({"3": "crash in predict"}))
    given = ["--submission", bundle, "--seed", 3, "--tasks-per-dataset", 20, "--output", output]
    program = [sys.executable, BENCHMARKS / "_organiser_run.py", 0, "--quiet", *given]
    done = subprocess.run([*map(str, program)], capture_output=True, text=True, timeout=60, check=False)
    found = read_outcome(output, done.returncode, done.stderr)
    assert (found.exit_status, found.unanswered, len(found.accuracies)) == (0, 2, 20), done.stderr
    assert 0.2 < float(np.mean(found.accuracies)) < 1 and "on purpose" in found.reason
