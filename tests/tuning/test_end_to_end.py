"""A real grid on the demo: two points that share work, and the run that checks what is recommended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autometa.bundles.shipped import BASELINES, DEMO
from autometa.tuning.budget_file import Budget
from autometa.tuning.prediction import purchases_of

SETTINGS = """\
backbones: [tf_efficientnet_lite0]
resolutions: [96]
validation_episodes: 10
max_trials: 3
tune_steps: 0
families: []
"""
"""Of a search that ends long before its budget, so that a busy machine makes no difference."""


TUNE = """\
import sys
from autometa.cli.main import cli
from autometa.tuning import grid, runner, sameness

for module in (grid, runner, sameness):
    module.shares_work = lambda submission: submission == sys.argv[1]
cli(sys.argv[2:])
"""
"""The command, with one more bundle that shares its work."""


@pytest.mark.slow
def test_a_grid_on_the_demo_shares_work_and_chooses_as_alone(tmp_path: Path) -> None:
    """In a process of its own: what earlier tests left in this one would count as its memory."""
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    shutil.copytree(BASELINES / "autometa", bundle)
    (bundle / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    where = [str(DEMO / "LETTERS"), "-o", str(out), "--submission", str(bundle)]
    budgets = ["--time-budget", "4m", "--memory-budget", "3.5GB,4GB", "--no-skip-same"]
    tasks = ["--ways", "2-3", "--shots", "1-2", "--query-per-class", "2", "--tasks-per-dataset", "1"]
    result = subprocess.run(
        [sys.executable, "-c", TUNE, str(bundle), "tune-budget", *where, *budgets, *tasks, "--json", "-q"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 3), result.stderr
    budget = Budget.model_validate(json.loads(result.stdout))
    first, second = budget.points
    assert (first.charged_s, first.memory_budget_bytes) == (0.0, 4_000_000_000)
    assert second.charged_s > 0 and second.seconds["total"] > second.charged_s
    assert first.chosen == second.chosen == ["tf_efficientnet_lite0@96"]
    assert list(purchases_of(first)) == list(purchases_of(second))
    assert first.score == pytest.approx(second.score or -1, abs=5)
    assert first.adapt_ms is not None and first.adapt_ms.cold > first.adapt_ms.p50
    assert (first.model_bytes or 0) > 10**6 and (second.peak_bytes or 0) > 5 * 10**8
    assert not (out / "shared").exists()
    assert (out / "budget.html").stat().st_size > 10_000
    assert budget.recommendation is not None and budget.recommendation.check is not None
    assert (out / "recommended.yaml").exists()
