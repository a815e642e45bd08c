"""A competition, run as the platform runs it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from platform_worker import OF_THE_PLATFORM, play
from synthetic import MakeBundle, write_meta_album

from autometa.bundles.competition import Plan, make_competition
from autometa.bundles.schema import Competition
from autometa.bundles.solution import Options, make_solution
from autometa.core.settings import load_yaml
from ingestion import InputError
from ingestion.sandbox import choose_sandbox

LOADED = re.compile(
    rb"""(?:src|href|action|data|poster)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?(?:https?:)?//"""
)
"""What makes a browser ask another server."""

SPY = """
for path in ("/app/input_data/tasks.json", "/app/input/ref/truth.json", "/app/output/ingestion.json"):
    try:
        Path(path).read_bytes()
        print("READ", path)
    except OSError as error:
        print("closed:", type(error).__name__, path)
return MyLearner()
"""


@pytest.mark.slow
def test_a_submission_is_run_and_scored_as_on_the_platform(tmp_path: Path, make_bundle: MakeBundle) -> None:
    try:
        choose_sandbox("bubblewrap")
    except InputError as error:
        pytest.skip(f"bubblewrap plays the containers: {error}")
    data = tmp_path / "data"
    for name, px in (("PLAIN", 32), ("ANOTHER_WITH_A_RATHER_LONG_NAME", 33)):  # no image is in both
        write_meta_album(data / name, [12] * 9, px)
    plan = Plan(time_budget_s=40.0, tasks=3, query_per_class=4)
    make_competition(data, tmp_path / "competition.zip", plan)
    submission = make_solution(str(make_bundle(meta_fit=SPY)), tmp_path / "s.zip", Options(dry_run_s=None))
    assert submission.succeeded
    played = play(tmp_path / "competition.zip", tmp_path / "s.zip", tmp_path / "worker")
    assert played.ingestion.returncode == 0, played.ingestion.log
    assert played.scoring.returncode == 0, played.scoring.log
    assert "bubblewrap (" not in played.ingestion.log
    if (
        "sandbox: Landlock" in played.ingestion.log
    ):  # which needs the kernel's consent, not that of the container
        assert "READ" not in played.ingestion.log and "closed: PermissionError" in played.ingestion.log

    scores = json.loads((played.scores / "scores.json").read_text())
    description = load_yaml(tmp_path / "worker" / "competition" / "competition.yaml", Competition)
    keys = [column.key for column in description.leaderboards[0].columns]
    assert all(math.isfinite(scores[key]) for key in keys)
    assert all(len(key) <= 36 and math.isfinite(value) for key, value in scores.items())
    assert scores["normalized_accuracy"] > 0.5  # colours tell the classes: these are the right tasks
    assert scores["tasks_missing"] == 0

    assert not LOADED.search((played.scores / "detailed_results.html").read_bytes())
    assert not (played.scores / "metadata").exists()
    shown = {path.name for path in played.predictions.rglob("*")}
    assert {OF_THE_PLATFORM, "task_1.predict", "ingestion.json"} <= shown
    assert shown.isdisjoint({"truth.json", "model", "learner.json"})
