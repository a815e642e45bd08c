"""A real grid on the demo: two points that share work, and the run that checks what is recommended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from autometa.bundles.shipped import DEMO
from autometa.cli.main import cli
from autometa.tuning.budget_file import Budget


@pytest.mark.slow
def test_a_grid_on_the_demo_shares_work_and_chooses_as_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    budgets = ["--time-budget", "40s", "--memory-budget", "3.5GB,4GB", "--no-skip-same"]
    tasks = ["--ways", "2-3", "--shots", "1-2", "--query-per-class", "2", "--tasks-per-dataset", "1"]
    arguments = ["tune-budget", str(DEMO), "-o", str(out), *budgets, *tasks, "--json", "-q"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in (0, 3), result.output  # on a busy machine nothing may fit
    budget = Budget.model_validate(json.loads(result.stdout))
    first, second = budget.points
    assert (first.charged_s, first.memory_budget_bytes) == (0.0, 4_000_000_000)
    assert second.seconds["total"] >= second.charged_s
    assert first.chosen and set(first.chosen) & set(second.chosen)
    if len(first.seconds) > 9:  # a view was bought: there was time for more than the bootstrap
        assert second.charged_s > 0, second
    assert first.adapt_ms is not None and first.adapt_ms.cold > first.adapt_ms.p50
    assert (first.model_bytes or 0) > 10**6
    assert not (out / "shared").exists()
    for name in ("budget.json", "budget.html"):
        assert (out / name).stat().st_size > 1000
    if budget.recommendation is not None:
        assert budget.recommendation.check is not None
        assert (out / "recommended.yaml").exists()
