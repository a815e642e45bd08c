"""Planning, search and the controller, with a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
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
from autometa.planning.plan import Costs, affordable, make_plan, meta_test_s
from autometa.systems.autometa import Controller

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
SMALL, LARGE = View("net", 64), View("net", 128)
COSTS = Costs(start_s=2.0, image_s={SMALL: 0.01, LARGE: 0.04})


def test_meta_test_is_reserved_by_what_it_costs() -> None:
    assert meta_test_s([LARGE], TEST, COSTS) > meta_test_s([SMALL], TEST, COSTS) > 2.0
    more = TestSpec(tasks=200, episodes=SPEC, images=1000, protocol="x")
    assert meta_test_s([SMALL], more, COSTS) > meta_test_s([SMALL], TEST, COSTS)
    unknown = TestSpec(tasks=20, episodes=SPEC, images=None, protocol="x")
    assert unknown.embedded_images == 20 * SPEC.mean_images


def test_the_plan_leaves_the_search_what_remains() -> None:
    plan = make_plan(60, [SMALL], TEST, COSTS)
    assert plan.meta_test_s == meta_test_s([SMALL], TEST, COSTS)
    assert 0 < plan.search_s < 60 - plan.meta_test_s
    assert "meta-test" in plan.why
    assert make_plan(3, [SMALL], TEST, COSTS).search_s < 0


def test_views_are_affordable_together_or_not() -> None:
    need = meta_test_s([SMALL], TEST, COSTS)
    assert affordable([SMALL], need + 0.1, {}, TEST, COSTS)
    assert not affordable([SMALL], need + 0.1, {SMALL: 1000}, TEST, COSTS)
    assert not affordable([SMALL, LARGE], need + 0.1, {}, TEST, COSTS)


def test_the_bench_keeps_classes_and_images_apart() -> None:
    pool = colour_pool(classes=16, datasets=2)
    validation_set = ValidationSet.of(pool, TEST, 10, 10_000, np.random.default_rng(0))
    labels = pool.labels[validation_set.keys]
    assert set(labels[: validation_set.size]).isdisjoint(labels[validation_set.size :])
    assert len(set(validation_set.keys)) == len(validation_set.keys)
    rows = np.concatenate([e.query_rows for e in validation_set.episodes.episodes])
    assert rows.max() < validation_set.size
    assert validation_set.episodes.episodes != validation_set.fresh.episodes


def test_metrics_are_fitted_on_all_classes_in_the_end() -> None:
    pool = colour_pool(classes=16)
    validation_set = ValidationSet.of(pool, TEST, 10, 10_000, np.random.default_rng(0))
    features = torch.randn(len(validation_set.keys), 6, generator=torch.Generator().manual_seed(0))
    features[: validation_set.size] += 5
    half = validation_set.metric(SMALL, features, "cl2n").mean
    whole = validation_set.metric(SMALL, features, "cl2n", every_class=True).mean
    assert half is not None and whole is not None
    torch.testing.assert_close(half, features[validation_set.size :].mean(0))
    torch.testing.assert_close(whole, features.mean(0))


def test_few_images_are_enough_to_rank_views() -> None:
    pool = colour_pool(classes=40)
    few = ValidationSet.small(
        pool, EpisodeSpec(ways=(2, 20), shots=(1, 20), queries_per_class=20), np.random.default_rng(0)
    )
    assert len(few.images) == len(few.keys) == few.size <= 200
    np.testing.assert_array_equal(few.images, pool.images[few.keys])
    assert {len(e.query_rows) // e.ways for e in few.episodes.episodes} == {4}
    assert max(e.ways for e in few.episodes.episodes) <= 10


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
