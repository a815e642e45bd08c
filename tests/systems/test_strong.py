"""The fixed recipe of a few frozen views, with a tiny network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.backbones import STAGES, View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.model.artifact import load_description
from autometa.model.fitted_learner import FittedLearner
from autometa.model.portfolio import Portfolio
from autometa.systems import strong
from autometa.systems.strong import CHOICES, StrongSystem

pytestmark = pytest.mark.usefixtures("eager_only")

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
POOL = colour_pool(classes=16)
SIZES = (32, 40, 48, 56)


@pytest.fixture(autouse=True)
def _few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strong, "EPISODES", 12)


def system(
    folder: Path, backbone: str, seconds: float = 120.0, test: TestSpec = TEST
) -> tuple[StrongSystem, list[str]]:
    """A system of four views of one tiny network, and the lines that it reports."""
    lines: list[str] = []
    budget = TimeBudget.of(seconds)
    limits = Limits(budget, budget, MemoryBudget(16 * 2**30))
    first, *further = (View(backbone, px) for px in SIZES)
    run = StrongSystem(test, limits, folder, lines.append, start_s=1.0, view=first, further=tuple(further))
    return run, lines


def answer(learner: FittedLearner | Portfolio, ways: int = 3, shots: int = 4) -> np.ndarray[Any, Any]:
    """Probabilities for four queries of each class."""
    support = np.concatenate([POOL.rows_of_class[c][:shots] for c in range(ways)])
    query = np.concatenate([POOL.rows_of_class[c][shots : shots + 4] for c in range(ways)])
    labels = np.repeat(np.arange(ways), shots)
    return learner.fit(POOL.images[support], labels, ways).predict(POOL.images[query])


def preferring(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[int, tuple[str, float]]
) -> list[tuple[int, str]]:
    """Have validation like one metric of each size best, with this accuracy; what it was asked about."""
    asked: list[tuple[int, str]] = []
    measured = ValidationSet.answer

    def biased(self: ValidationSet, view: View, *args: Any) -> Answer:
        found, transform = measured(self, view, *args), args[2]["transform"]
        asked.append((view.px, transform))
        name, accuracy = wanted[view.px]
        return replace(found, accuracies=np.full_like(found.accuracies, accuracy * (transform == name)))

    monkeypatch.setattr(ValidationSet, "answer", biased)
    return asked


@pytest.mark.medium
def test_a_metric_is_chosen_on_each_view_and_the_best_three_answer(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {32: ("white", 0.7), 40: ("root_white", 0.5), 48: ("root_l2", 0.9), 56: ("root_white_weak", 0.8)}
    asked = preferring(monkeypatch, wanted)
    learner = system(tmp_path, tiny_backbone)[0].run(POOL)
    for px in SIZES:
        names = [name for size, name in asked if size == px]
        assert names == [*CHOICES, wanted[px][0]], "all in turn, then the chosen one on fresh episodes"
    found = [(m.px, m.params["transform"]) for m in learner.members]
    assert found == [(48, "root_l2"), (56, "root_white_weak"), (32, "white")]
    assert {m.weight for m in learner.members} == {1.0}
    assert {m.layers for m in learner.members} == {STAGES}
    for member in learner.members:
        assert member.head == "ot_map"
        assert member.params.items() >= {"sharpness": 15.0, "step": 0.4}.items()


@pytest.mark.medium
def test_the_metrics_are_fitted_again_on_all_classes(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[set[int]] = []
    statistics = strong.FeatureStatistics

    def noted(features: Any, labels: Any) -> Any:
        fitted.append(set(labels.tolist()))
        return statistics(features, labels)

    preferring(monkeypatch, dict.fromkeys(SIZES, ("root_white", 1.0)))
    monkeypatch.setattr(strong, "FeatureStatistics", noted)
    learner = system(tmp_path, tiny_backbone)[0].run(POOL)
    assert fitted == [set(range(16))] * 4
    assert set(learner.metrics) == {(m.view, "root_white") for m in learner.members}


@pytest.mark.medium
def test_saved_and_loaded_answers_any_ways_and_shots(tmp_path: Path, tiny_backbone: str) -> None:
    learner = system(tmp_path, tiny_backbone)[0].run(POOL)
    again = FittedLearner.load(tmp_path)
    assert again.members == learner.members and len(again.members) == 3
    assert again.balanced
    assert again.validation["stage"] == "final"
    assert again.validation["normalised_accuracy"] > 0.5
    np.testing.assert_allclose(answer(again), answer(learner), rtol=1e-2, atol=1e-3)
    for ways, shots in ((2, 1), (5, 3), (16, 8)):
        probabilities = answer(again, ways, shots)
        assert probabilities.shape == (4 * ways, ways)
        np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (answer(again, 5, 5).argmax(1) == np.repeat(np.arange(5), 4)).mean() > 0.7


@pytest.mark.medium
def test_queries_that_are_not_declared_balanced_are_guarded(tmp_path: Path, tiny_backbone: str) -> None:
    test = replace(TEST, episodes=replace(SPEC, balanced=False))
    learner = system(tmp_path, tiny_backbone, test=test)[0].run(POOL)
    assert not learner.balanced
    assert not FittedLearner.load(tmp_path).balanced


def test_without_time_the_nearest_class_mean_stays(tmp_path: Path, tiny_backbone: str) -> None:
    run, lines = system(tmp_path, tiny_backbone, seconds=0.5)
    run.bootstrap()
    assert load_description(tmp_path).validation == {"stage": "bootstrap"}
    assert answer(run.run(POOL)).shape == (12, 3)
    assert FittedLearner.load(tmp_path).validation == {"stage": "bootstrap"}
    assert any(line.startswith("stopped early: no time is left") for line in lines)


def test_a_view_that_time_ends_in_is_left_out_and_the_first_one_is_saved_by_then(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    embed, stages = run._store.embed, []

    def late(view: View, *rest: Any) -> Any:
        if view.px > 32:
            stages.append(load_description(tmp_path).validation["stage"])
            raise BudgetExhausted("late")
        return embed(view, *rest)

    monkeypatch.setattr(run._store, "embed", late)
    learner = run.run(POOL)
    assert stages == ["first view"] * 3
    assert [m.px for m in learner.members] == [32]
    assert learner.validation["stage"] == "final"
    assert f"{View(tiny_backbone, 48, STAGES)} is left out: late" in lines


@pytest.mark.medium
def test_a_view_is_embedded_only_where_meta_test_with_it_fits(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    embedded: list[int] = []
    embed, fits = run._store.embed, run._forecast.fits

    def noted(view: View, *rest: Any) -> Any:
        embedded.append(view.px)
        return embed(view, *rest)

    def two_at_most(views: list[View], *args: Any, **options: Any) -> bool:
        return len(views) <= 2 and fits(views, *args, **options)

    monkeypatch.setattr(run._store, "embed", noted)
    monkeypatch.setattr(run._forecast, "fits", two_at_most)
    assert len(run.run(POOL).members) == 2
    assert embedded == [32, 40]
    assert sum("do not fit in the time left" in line for line in lines) == 2


@pytest.mark.medium
def test_with_little_time_there_are_fewer_images_of_every_class(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    seen: list[ValidationSet] = []
    made = run._hold_out

    def noted(*args: Any) -> ValidationSet:
        seen.append(made(*args))
        return seen[-1]

    monkeypatch.setattr(run, "_hold_out", noted)
    monkeypatch.setattr(run, "_count_affordable", lambda *_: 100)
    monkeypatch.setattr(strong, "LEAST_IMAGES", 50)
    assert len(run.run(POOL).members) == 3
    assert "100 of 224 images fit" in lines
    assert set(seen[0].labels.tolist()) == set(range(16))


def test_views_without_time_for_enough_images_are_not_planned(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    monkeypatch.setattr(run, "_count_affordable", lambda views, _: 224 if len(views) == 1 else 10)
    assert len(run.run(POOL).members) == 1
    assert sum(line.startswith("no time for 224 images with") for line in lines) == 3


@pytest.mark.medium
def test_a_network_without_weights_is_left_out(tmp_path: Path, tiny_backbone: str) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    run.further = (View("no_such_network", 32), View(tiny_backbone, 40))
    assert {m.px for m in run.run(POOL).members} == {32, 40}
    assert any(line.startswith("left out: timm knows no model") for line in lines)


@pytest.mark.medium
@pytest.mark.parametrize("pool", [
    pytest.param(colour_pool(classes=3, datasets=1), id="too few classes to hold any out"),
    pytest.param(colour_pool(classes=1, datasets=1), id="no episode can be drawn"),
    pytest.param(colour_pool(classes=16, per_class=1), id="one image of each class"),
])  # fmt: skip
def test_few_classes_leave_the_metric_that_needs_none(
    tmp_path: Path, tiny_backbone: str, pool: ImagePool
) -> None:
    learner = system(tmp_path, tiny_backbone)[0].run(pool)
    assert [m.params["transform"] for m in learner.members] == ["root_l2"] * 3
    assert learner.validation["stage"] == "final" and not learner.metrics
    assert answer(FittedLearner.load(tmp_path)).shape == (12, 3)
