"""Planning, search and the controller, with a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.backbones import View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted, WeightsError
from autometa.core.settings import Settings
from autometa.core.time_policy import POLICY, TimePolicy
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import HEADS
from autometa.model.artifact import load_description
from autometa.model.fitted_learner import FittedLearner
from autometa.planning.plan import Costs
from autometa.systems.autometa import Controller

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
SMALL, LARGE = View("net", 64), View("net", 128)
COSTS = Costs(start_s=2.0, image_s={SMALL: 0.01, LARGE: 0.04})


def limits(seconds: float) -> Limits:
    budget = TimeBudget.of(seconds)
    return Limits(budget, budget, MemoryBudget(8 * 2**30))


def controller(
    tmp_path: Path, backbone: str, seconds: float, lines: list[str], policy: TimePolicy = POLICY
) -> Controller:
    settings = Settings(
        backbones=(backbone,),
        resolutions=(32, 48),
        validation_episodes=20,
        max_trials=24,
        tune_steps=40,
        families=("prototypical",),
    )
    return Controller(settings, TEST, limits(seconds), tmp_path, lines.append, 1.0, policy)


@pytest.mark.slow
def test_a_run_ends_with_a_saved_learner_that_it_can_explain(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    policy = TimePolicy(family_share=0.06, least_family_s=1.0)  # families take what they are given
    learner = controller(tmp_path, tiny_backbone, 120, lines, policy).run(colour_pool(classes=16))
    saved = FittedLearner.load(tmp_path)
    assert saved.members == learner.members
    assert saved.validation["stage"] == "final"
    assert 0.5 < saved.validation["normalised_accuracy"] <= 1
    assert 0 <= saved.validation["calibration_error"] < 1
    lines_of_journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    heads = [row for row in lines_of_journal if "head" in row]
    families = [row for row in lines_of_journal if "family" in row]
    assert {row["head"] for row in heads} == set(HEADS)
    assert {row["status"] for row in heads} <= {"ok", "pruned"}
    assert {row["family"] for row in families} == {"prototypical"}
    assert "ok" in {row["status"] for row in families}
    assert any(row["view"].startswith(f"{tiny_backbone}+tuned@") for row in heads)
    assert any(line.startswith("tuned") for line in lines)
    assert any(line.startswith("plan:") for line in lines)
    assert any(line.startswith("chosen:") and "calibration error" in line for line in lines)
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert sorted(stages, key=str) == sorted((row for row in lines_of_journal if "stage" in row), key=str)
    stages_by_name = {row.pop("stage"): row for row in stages}
    assert set(stages_by_name) == {
        "bootstrap",
        "probe",
        "rank",
        "search",
        "tune",
        "families",
        "ensemble",
        "save",
        "meta_test",
    }
    assert (
        stages_by_name["rank"]["note"].startswith("worth a trial:")
        and "chosen:" in stages_by_name["ensemble"]["note"]
    )
    assert "priors" in stages_by_name["search"]["note"]
    assert (
        stages_by_name["meta_test"]["predicted_s"] > 0 and stages_by_name.pop("meta_test")["actual_s"] is None
    )
    assert all(row["actual_s"] is not None for row in stages_by_name.values())
    assert 0 < stages_by_name["search"]["actual_s"] < stages_by_name["search"]["predicted_s"]


def test_the_bootstrap_is_a_valid_learner(tmp_path: Path, tiny_backbone: str) -> None:
    controller(tmp_path, tiny_backbone, 100, []).bootstrap()
    assert load_description(tmp_path).validation == {"stage": "bootstrap"}
    pool = colour_pool()
    rows = np.concatenate([pool.rows_of_class[c][:2] for c in range(3)])
    predictor = FittedLearner.load(tmp_path).fit(pool.images[rows], np.repeat(np.arange(3), 2), 3)
    assert predictor.predict(pool.images[:5]).shape == (5, 3)


def test_without_time_the_bootstrap_stays(tmp_path: Path, tiny_backbone: str) -> None:
    lines: list[str] = []
    learner = controller(tmp_path, tiny_backbone, 0.5, lines).run(colour_pool())
    assert len(learner.members) == 1
    assert FittedLearner.load(tmp_path).validation["stage"] == "bootstrap"


def test_time_running_out_in_the_search_is_no_error(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> None:
        raise BudgetExhausted("late")

    lines: list[str] = []
    run = controller(tmp_path, tiny_backbone, 120, lines)
    monkeypatch.setattr(ValidationSet, "of", late)
    assert run.run(colour_pool()).members
    assert "stopped early: late" in lines


def test_no_backbone_is_an_error_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.systems.autometa.installed_backbones", list)
    run = Controller(Settings(), TEST, limits(10), tmp_path, print)
    with pytest.raises(WeightsError, match="pip install"):
        run.bootstrap()
