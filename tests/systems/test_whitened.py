"""The system of a frozen backbone, one metric and the nearest class mean, with a tiny network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import METRICS, FeatureStatistics
from autometa.model.artifact import load_description
from autometa.model.fitted_learner import FittedLearner
from autometa.model.portfolio import Portfolio
from autometa.systems import whitened
from autometa.systems.whitened import WhitenedSystem

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
POOL = colour_pool(classes=16)


def system(folder: Path, backbone: str, seconds: float = 120.0) -> tuple[WhitenedSystem, list[str]]:
    lines: list[str] = []
    budget = TimeBudget.of(seconds)
    limits = Limits(budget, budget, MemoryBudget(8 * 2**30))
    return WhitenedSystem(TEST, limits, folder, lines.append, start_s=1.0, view=View(backbone, 32)), lines


def answer(learner: FittedLearner | Portfolio, order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray[Any, Any]:
    """Probabilities for queries of three classes whose labels are `order`."""
    support = np.concatenate([POOL.rows_of_class[c][:4] for c in range(3)])
    query = np.concatenate([POOL.rows_of_class[c][4:8] for c in range(3)])
    return learner.fit(POOL.images[support], np.repeat(order, 4), 3).predict(POOL.images[query])


@pytest.fixture
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitened, "EPISODES", 12)


def preferring(monkeypatch: pytest.MonkeyPatch, wanted: str) -> list[str]:
    """Have validation like one metric best; the metrics that it was asked about."""
    asked: list[str] = []
    measured = ValidationSet.answer

    def biased(self: ValidationSet, *args: Any, **kwargs: Any) -> Answer:
        found, name = measured(self, *args, **kwargs), args[3]["transform"]
        asked.append(name)
        return Answer(found.scores, np.full_like(found.accuracies, float(name == wanted)))

    monkeypatch.setattr(ValidationSet, "answer", biased)
    return asked


@pytest.mark.medium
@pytest.mark.usefixtures("few_episodes", "eager_only")
def test_every_metric_is_measured_and_the_best_fitted_again_on_all_classes(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = preferring(monkeypatch, "root_white")
    run, lines = system(tmp_path, tiny_backbone)
    learner = run.run(POOL)
    assert asked == [*METRICS, "root_white"], "all in turn, then the chosen one on fresh episodes"
    member = learner.members[0]
    assert (member.head, member.params["transform"]) == ("centroid", "root_white")
    features = BackboneShelf("cpu")(tiny_backbone).embed(POOL.images, 32)
    expected = FeatureStatistics(features, torch.from_numpy(POOL.labels)).fit(METRICS["root_white"])
    found = learner.metrics[View(tiny_backbone, 32), "root_white"]
    assert found.mean is not None and expected.mean is not None
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found(features[:5]), expected(features[:5]), atol=2e-2, rtol=0)
    assert any("metric root_white: 100.0" in line for line in lines)


@pytest.mark.medium
@pytest.mark.usefixtures("few_episodes")
def test_metrics_are_measured_on_classes_that_they_were_not_fitted_on(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    benches: list[tuple[ValidationSet, ImagePool]] = []
    made = ValidationSet.of.__func__  # type: ignore[attr-defined]

    def noted(cls: Any, pool: ImagePool, *rest: Any) -> ValidationSet:
        benches.append((made(cls, pool, *rest), pool))
        return benches[-1][0]

    monkeypatch.setattr(ValidationSet, "of", classmethod(noted))
    system(tmp_path, tiny_backbone)[0].run(POOL)
    validation_set, pool = benches[0]
    labels = pool.labels[validation_set.keys]
    assert set(labels[: validation_set.size]).isdisjoint(labels[validation_set.size :])
    assert set(labels) == set(range(16)), "all classes are on one side or the other"


@pytest.mark.medium
@pytest.mark.usefixtures("few_episodes")
def test_saved_and_loaded_answers_the_same(tmp_path: Path, tiny_backbone: str) -> None:
    learner = system(tmp_path, tiny_backbone)[0].run(POOL)
    again = FittedLearner.load(tmp_path)
    assert again.members == learner.members
    assert again.validation["stage"] == "final"
    assert again.validation["normalised_accuracy"] > 0.5
    np.testing.assert_allclose(answer(again), answer(learner), rtol=1e-3, atol=1e-5)
    assert (answer(again).argmax(1) == np.repeat(np.arange(3), 4)).mean() > 0.8


@pytest.mark.medium
@pytest.mark.usefixtures("few_episodes")
def test_permuting_labels_permutes_the_answer(tmp_path: Path, tiny_backbone: str) -> None:
    learner = system(tmp_path, tiny_backbone)[0].run(POOL)
    np.testing.assert_allclose(answer(learner, (2, 0, 1))[:, [2, 0, 1]], answer(learner), atol=1e-6)


def test_without_time_the_nearest_class_mean_stays(tmp_path: Path, tiny_backbone: str) -> None:
    run, lines = system(tmp_path, tiny_backbone, seconds=0.5)
    run.bootstrap()
    assert load_description(tmp_path).validation == {"stage": "bootstrap"}
    assert answer(run.run(POOL)).shape == (12, 3)
    assert FittedLearner.load(tmp_path).validation == {"stage": "bootstrap"}
    assert any(line.startswith("stopped early: no time is left") for line in lines)


@pytest.mark.medium
@pytest.mark.usefixtures("few_episodes")
def test_time_that_ends_among_the_metrics_leaves_the_best_so_far(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    left = iter([True, True, False])
    monkeypatch.setattr(run._forecast, "fits", lambda *_, spare_s=0.0: next(left) if spare_s else True)
    learner = run.run(POOL)
    assert learner.validation["stage"] == "final"
    assert learner.members[0].params["transform"] in ("none", "l2")
    assert "no time for the metrics from root_l2 on" in lines


def test_time_that_ends_while_embedding_is_no_error(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> None:
        raise BudgetExhausted("late")

    run, lines = system(tmp_path, tiny_backbone)
    monkeypatch.setattr(run._store, "embed", late)
    assert run.run(POOL).validation == {"stage": "bootstrap"}
    assert "stopped early: late" in lines


@pytest.mark.medium
def test_too_few_classes_to_hold_any_out_leave_metrics_that_need_none(
    tmp_path: Path, tiny_backbone: str
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    learner = run.run(colour_pool(classes=3, datasets=1))
    assert learner.validation["stage"] == "final"
    assert not METRICS[str(learner.members[0].params["transform"])].learned
    assert any(line.startswith("metric white: ValueError") for line in lines)
