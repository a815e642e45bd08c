"""Portfolios: several views that answer in several modes, saved and loaded, and what they drop when they are late."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import ArtifactError, DataError
from autometa.heads import FeatureStatistics, Metric, find_metric
from autometa.heads.modes import SIX_MODES, find_mode
from autometa.model.artifact import MetricKey
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio, WeightedMode, list_inputs
from autometa.planning.meta_test import MetaTestSchedule

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


@pytest.mark.parametrize(("ways", "shots"), [(4, 2), (2, 1), (3, 5)])
def test_it_answers_any_way_any_shot(tiny_backbone: str, ways: int, shots: int) -> None:
    images, labels, query, truth = task(ways, shots)
    answer = portfolio(tiny_backbone).fit(images, labels, ways).predict(query)
    assert answer.shape == (5 * ways, ways)
    np.testing.assert_allclose(answer.sum(1), 1.0)
    assert (answer.argmax(1) == truth).mean() > 0.6


def test_what_is_loaded_answers_alike(tiny_backbone: str, tmp_path: Path) -> None:
    learner = portfolio(tiny_backbone)
    learner.save(tmp_path)
    (tmp_path / "metrics-old.safetensors").write_bytes(b"of an earlier state")
    learner.save(tmp_path)
    assert len(list(tmp_path.glob("metrics-*"))) == 1
    loaded = load_learner(tmp_path)
    assert isinstance(loaded, Portfolio) and loaded.views == learner.views and loaded.modes == learner.modes
    images, labels, query, _ = task()
    ours, theirs = (one.fit(images, labels, 4).predict(query) for one in (learner, loaded))
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # projections are saved with half precision
    (tmp_path / "learner.json").write_text('{"format": "autometa-portfolio-1", "views": []}')
    with pytest.raises(ArtifactError, match=r"learner\.json"):
        load_learner(tmp_path)


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


def test_modes_are_dropped_before_views_where_it_is_late(tiny_backbone: str) -> None:
    learner, clock = portfolio(tiny_backbone), FakeClock()
    schedule = MetaTestSchedule(TimeBudget.of(1000, clock), tasks_left=10, images=100.0)
    learner.schedule = schedule
    for view in learner.views:
        learner.store.speed(view).add(0.1 * 20, 20)

    def left(seconds: float) -> tuple[int, int]:
        schedule.budget.deadline = clock() + seconds + 1.5
        views, modes = learner._affordable()
        return len(views), len(modes)

    embed_s, rest_s = 1.1 * 100 * 0.1, 10 * schedule.times.rest_s()
    assert left(2 * embed_s + rest_s + 0.01) == (2, 6)
    assert left(2 * embed_s + rest_s / 2 + 0.01) == (2, 3)
    assert left(2 * embed_s + rest_s / 6 + 0.01) == (2, 1)
    assert left(1.5 * embed_s) == (1, 1)
    assert left(0.0) == (1, 1)


def test_wrong_labels_are_an_error(tiny_backbone: str) -> None:
    images, labels, _, _ = task()
    with pytest.raises(DataError, match="label"):
        portfolio(tiny_backbone, ("transport",)).fit(images, labels[:-1], 4)
