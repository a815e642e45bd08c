"""Portfolios: several views that answer in several modes, saved and loaded, and what they drop when they are late."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core import files
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import ArtifactError, DataError
from autometa.data.images import hash_images
from autometa.heads import FeatureStatistics, Metric, find_metric
from autometa.heads.modes import SIX_MODES, find_mode
from autometa.model.artifact import MetricKey
from autometa.model.inputs import list_inputs
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.serving import ServingCosts

POOL = colour_pool(classes=12)


def portfolio(backbone: str, modes: tuple[str, ...] = SIX_MODES) -> Portfolio:
    views = (View(backbone, 32), View(backbone, 48))
    shelf = BackboneShelf("cpu")
    store = FeatureStore(shelf, MemoryBudget(2**40))
    rows = np.flatnonzero(POOL.labels < 8)
    metrics: dict[MetricKey, Metric] = {}
    for key in {key for name in modes for key in find_mode(name).keys}:
        for view, name in list_inputs(views, key):
            features = store.embed(view, POOL.images[rows], rows.tolist())
            statistics = FeatureStatistics(features, torch.from_numpy(POOL.labels[rows]))
            metrics[view, name] = statistics.fit(find_metric(name))
    weighted = tuple(WeightedMode(name=name, weight=1.0 + place) for place, name in enumerate(modes))
    return Portfolio(views, weighted, shelf, metrics, balanced=True, validation={"stage": "final"})


def task(ways: int = 4, shots: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Support images and labels, query images and labels, of classes that no metric has seen."""
    rows = [POOL.rows_of_class[8 + c] for c in range(ways)]
    support = np.concatenate([r[:shots] for r in rows])
    query = np.concatenate([r[shots : shots + 5] for r in rows])
    labels = np.arange(ways)
    return POOL.images[support], labels.repeat(shots), POOL.images[query], labels.repeat(5)


@pytest.mark.medium
@pytest.mark.parametrize(("ways", "shots"), [(4, 2), (2, 1), (3, 5)])
def test_it_answers_any_way_any_shot(tiny_backbone: str, ways: int, shots: int) -> None:
    images, labels, query, truth = task(ways, shots)
    answer = portfolio(tiny_backbone).fit(images, labels, ways).predict(query)
    assert answer.shape == (5 * ways, ways)
    np.testing.assert_allclose(answer.sum(1), 1.0)
    assert (answer.argmax(1) == truth).mean() > 0.6


@pytest.mark.medium
@pytest.mark.parametrize("queries", [2, 20])
def test_labels_of_fewer_bits_are_labels(tiny_backbone: str, queries: int) -> None:
    """Where few queries are asked and where many are."""
    images, labels, query, _ = task()
    learner = portfolio(tiny_backbone)
    answers = [
        learner.fit(images, labels.astype(kind), 4).predict(query[:queries])
        for kind in (np.int64, np.int32, np.uint8)
    ]
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])


@pytest.mark.medium
def test_what_is_loaded_answers_alike(tiny_backbone: str, tmp_path: Path) -> None:
    learner = portfolio(tiny_backbone)
    learner.costs = ServingCosts(image_s={"tiny@32": 0.25}, engine_s={"tiny@32": 2.0}, task_s=0.5)
    learner.save(tmp_path)
    (tmp_path / "metrics-old.safetensors").write_bytes(b"of an earlier state")
    learner.save(tmp_path)
    assert len(list(tmp_path.glob("metrics-*"))) == len(learner.views)
    loaded = load_learner(tmp_path)
    assert isinstance(loaded, Portfolio) and loaded.views == learner.views and loaded.modes == learner.modes
    assert loaded.costs == learner.costs
    images, labels, query, _ = task()
    ours, theirs = (one.fit(images, labels, 4).predict(query) for one in (learner, loaded))
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # projections are saved with half precision
    (tmp_path / "learner.json").write_text('{"format": "autometa-portfolio-1", "views": []}')
    with pytest.raises(ArtifactError, match=r"learner\.json"):
        load_learner(tmp_path)


@pytest.mark.medium
def test_metrics_of_all_views_in_one_file_are_read_too(tiny_backbone: str, tmp_path: Path) -> None:
    learner = portfolio(tiny_backbone, ("root",))
    learner.save(tmp_path)
    described = json.loads((tmp_path / "learner.json").read_text())
    described.pop("checksum")
    tensors = [files.load_tensors(tmp_path, name) for name in described["metrics"]]
    described["metrics"] = files.save_tensors(tmp_path, "metrics", tensors[0] | tensors[1])
    (tmp_path / "learner.json").write_text(json.dumps(described))
    images, labels, query, _ = task()
    answers = [one.fit(images, labels, 4).predict(query) for one in (learner, load_learner(tmp_path))]
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


@pytest.mark.medium
def test_what_has_not_changed_is_neither_hashed_nor_written_again(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = portfolio(tiny_backbone)
    first = replace(whole, views=whole.views[:1])
    hashed: list[int] = []
    written: list[str] = []

    def hashing(tensors: files.Tensors) -> str:
        hashed.append(sum(tensor.nbytes for tensor in tensors.values()))
        return files.hash_tensors(tensors)

    def writing(file: Path, tensors: files.Tensors, write: Any = files.write_tensors) -> None:
        written.append(file.name.rsplit("-", 1)[0])
        write(file, tensors)

    monkeypatch.setattr("autometa.backbones.build.hash_tensors", hashing)
    monkeypatch.setattr("autometa.heads.metrics.hash_tensors", hashing)
    monkeypatch.setattr(files, "write_tensors", writing)
    first.save(tmp_path)
    assert written == [f"backbone-{tiny_backbone}", "metrics"]
    known = len(hashed)
    first.save(tmp_path)
    assert len(written) == 2 and len(hashed) == known > 0
    whole.save(tmp_path)
    assert written[2:] == ["metrics"] and known < len(hashed) <= 2 * known
    images, labels, query, _ = task()
    assert load_learner(tmp_path).fit(images, labels, 4).predict(query).shape == (len(query), 4)


@pytest.mark.medium
def test_weights_count(tiny_backbone: str) -> None:
    images, labels, query, _ = task()
    query = ((query.astype(int) + np.roll(query, 7, axis=0)) // 2).astype(np.uint8)  # between two classes
    learner = portfolio(tiny_backbone, ("root", "plain"))
    root, plain = (portfolio(tiny_backbone, (name,)) for name in ("root", "plain"))
    learner.modes = (WeightedMode(name="root", weight=1e9), WeightedMode(name="plain", weight=1.0))
    answers = [one.fit(images, labels, 4).predict(query) for one in (learner, root, plain)]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    assert np.abs(answers[0] - answers[2]).max() > 1e-3


def test_an_image_is_embedded_and_moved_once(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = portfolio(tiny_backbone, ("root",))
    images, labels, query, _ = task()
    learner.fit(images, labels, 4).predict(query)
    moved = []
    original = Metric.__call__

    def counting(metric: Metric, features: torch.Tensor) -> torch.Tensor:
        moved.append(len(features))
        return original(metric, features)

    monkeypatch.setattr(Metric, "__call__", counting)
    learner.fit(images, labels, 4).predict(query)
    assert not moved


@pytest.mark.medium
def test_without_room_to_remember_the_answers_are_the_same(tiny_backbone: str) -> None:
    images, labels, query, _ = task()
    learner, forgetful = portfolio(tiny_backbone), portfolio(tiny_backbone)
    forgetful._most_remembered = 0
    answers = [one.fit(images, labels, 4).predict(query) for one in (learner, forgetful)]
    np.testing.assert_allclose(answers[0], answers[1], atol=5e-3)  # what is remembered has half precision
    assert learner._moved and not any(map(len, forgetful._moved.values()))


def test_features_that_are_not_finite_cost_their_image_alone(tiny_backbone: str) -> None:
    images, labels, query, truth = task()
    learner = portfolio(tiny_backbone)
    take = learner.store.take

    def broken(view: View, keys: list[bytes]) -> torch.Tensor:
        features = take(view, keys).clone()
        features[[place for place, key in enumerate(keys) if key == bad]] = torch.nan
        return features

    (bad,) = hash_images(query[:1])
    learner.store.take = broken  # type: ignore[assignment]
    answer = learner.fit(images, labels, 4).predict(query)
    assert np.isfinite(answer).all()
    assert (answer.argmax(1) == truth)[1:].mean() > 0.6


def late(
    learner: Portfolio, tasks_left: int = 10, images: float = 100.0
) -> tuple[MetaTestSchedule, FakeClock]:
    """A schedule on a fake clock that the learner follows."""
    clock = FakeClock()
    schedule = MetaTestSchedule(TimeBudget.of(1000, clock), tasks_left=tasks_left, images=images)
    learner.follow(schedule)
    return schedule, clock


def allowed(learner: Portfolio, seconds: float) -> tuple[int, int]:
    """Views and modes for a task that begins with so many seconds left."""
    schedule, plan = learner.schedule, learner.plan
    assert schedule is not None and plan is not None
    schedule.budget.deadline = schedule.budget.clock() + seconds + 1.5
    return plan.begin_task(learner.store)


def test_modes_are_dropped_before_views_where_it_is_late(tiny_backbone: str) -> None:
    learner = portfolio(tiny_backbone)
    schedule, _ = late(learner)
    for view in learner.views:
        learner.store.speed(view).add(0.1 * 20, 20)
    embed_s, rest_s = 1.1 * 100 * 0.1, 10 * schedule.times.rest_s()
    assert allowed(learner, 2 * embed_s + rest_s + 0.01) == (2, 6)
    assert allowed(learner, 2 * embed_s + rest_s / 2 + 0.01) == (2, 3)
    assert allowed(learner, 2 * embed_s + rest_s / 6 + 0.01) == (2, 1)
    assert allowed(learner, 1.5 * embed_s) == (1, 1)
    assert allowed(learner, 0.0) == (1, 1)


def test_what_meta_training_has_measured_counts_before_the_first_task(tiny_backbone: str) -> None:
    """A process that knows no speed yet would else begin with everything, however late it is."""
    learner = portfolio(tiny_backbone)
    names = [str(view) for view in learner.views]
    learner.costs = ServingCosts(
        image_s=dict.fromkeys(names, 0.1), engine_s=dict.fromkeys(names, 2.0), task_s=0.06
    )
    late(learner)
    embed_s, task_s = 1.3 * (100 * 0.1 + 2.0), 10 * 1.1 * 0.06
    assert allowed(learner, 2 * embed_s + task_s + 0.01) == (2, 6)
    assert allowed(learner, 2 * embed_s + task_s / 2 + 0.01) == (2, 3)
    assert allowed(learner, 1.9 * embed_s) == (1, 1)


@pytest.mark.medium
@pytest.mark.parametrize("predicting", [False, True])
@pytest.mark.parametrize(("limit_s", "slow_s"), [(float("inf"), 400.0), (6.2, 5.0)])
def test_one_task_does_not_take_the_time_of_all(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch, predicting: bool, limit_s: float, slow_s: float
) -> None:
    """The first view takes far longer than predicted; the second one waits for the next task. A task may take a third
    of 1,000 s, or less where ingestion ends it earlier."""
    learner, (images, labels, queries, _) = portfolio(tiny_backbone), task()
    schedule, clock = late(learner)
    schedule.expect(10, 100.0, limit_s)
    embed = learner.store.embed
    used: list[int] = []
    slow_call = 2 if predicting else 0

    def slowly(view: View, images: np.ndarray, keys: list[bytes]) -> torch.Tensor:
        if learner.store.missing(view, keys):
            clock.now += slow_s if len(used) == slow_call else 1.0
            used.append(view.px)
        return embed(view, images, keys)

    monkeypatch.setattr(learner.store, "embed", slowly)
    learner.costs = ServingCosts(image_s={str(view): 0.01 for view in learner.views})
    learner.follow(learner.schedule)
    assert learner.fit(images, labels, 4).predict(queries).shape == (20, 4)
    if predicting:  # the queries in the cheaper one
        assert used[:2] == [32, 48] and len(used) == 3
    else:
        assert used == [32, 32]
    learner.fit(images, labels, 4).predict(queries)
    assert sorted(used) == [32, 32, 48, 48]


def test_wrong_labels_are_an_error(tiny_backbone: str) -> None:
    images, labels, _, _ = task()
    with pytest.raises(DataError, match="label"):
        portfolio(tiny_backbone, ("transport",)).fit(images, labels[:-1], 4)


@pytest.mark.medium
@pytest.mark.parametrize(("ways", "shots"), [(4, 2), (2, 1), (3, 5)])
@pytest.mark.parametrize("with_schedule", [False, True])
def test_single_images_are_answered_as_in_a_batch(
    tiny_backbone: str, ways: int, shots: int, with_schedule: bool
) -> None:
    images, labels, query, truth = task(ways, shots)
    learner = portfolio(tiny_backbone)
    if with_schedule:
        budget = TimeBudget.of(1000.0)
        learner.follow(MetaTestSchedule(budget, tasks_left=100, images=1000))
    predictor = learner.fit(images, labels, ways)
    few = query[: 2 * ways - 1]
    together = learner._answer_together(predictor, few)
    torch.testing.assert_close(learner._answer_alone(predictor, few).exp(), together.exp(), atol=1e-5, rtol=0)
    whole = predictor.predict(few)
    alone = np.concatenate([predictor.predict(one[None]) for one in few])
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    assert len(predictor.means) == 1 and (whole.argmax(1) == truth[: len(few)]).mean() > 0.5


def test_single_images_need_no_more_than_their_own_work(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, query, _ = task()
    learner = portfolio(tiny_backbone)
    predictor = learner.fit(images, labels, 4)
    predictor.predict(query[:1])
    known = {view: learner.store.embedded(view) for view in learner.views}

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the support is given")

    monkeypatch.setattr(learner, "_move", refuse)
    monkeypatch.setattr("autometa.model.portfolio.factor_products", refuse)
    monkeypatch.setattr("autometa.model.inputs.hash_images", refuse)
    threads = torch.get_num_threads()
    assert predictor.predict(query[1:2]).shape == (1, 4)
    assert known == {view: learner.store.embedded(view) for view in learner.views}
    assert torch.get_num_threads() == threads


def test_a_process_that_is_slow_at_first_takes_the_cheapest_view_and_expects_the_others_to_be_slow(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines take many times as long as in meta-training, and the view with the largest weight is the dearest."""
    learner, (images, labels, _, _) = portfolio(tiny_backbone), task()
    dear, cheap = learner.views
    learner.costs = ServingCosts(
        image_s={str(dear): 0.1, str(cheap): 0.01}, engine_s={str(dear): 9.0, str(cheap): 1.0}
    )
    schedule, clock = late(learner, images=20.0)
    schedule.expect(10, 100.0, 60.0)
    embed, used = learner.store.embed, list[View]()

    def slowly(view: View, images: np.ndarray, keys: list[bytes]) -> torch.Tensor:
        clock.now += 8.0 if not used else 0.0
        used.append(view)
        return embed(view, images, keys)

    monkeypatch.setattr(learner.store, "embed", slowly)
    assert learner.fit(images, labels, 4).views == (cheap,) and used == [cheap]
    schedule.expect(9, 80.0, 300.0)
    assert learner.fit(images, labels, 4).views == (dear, cheap)
