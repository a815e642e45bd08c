"""What a task takes is measured without running a network."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.backbones import Backbone, View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.heads import Metric, find_metric
from autometa.model.inputs import list_inputs
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from autometa.model.task_time import measure_task_s

pytestmark = pytest.mark.usefixtures("eager_only")

SPEC = EpisodeSpec((2, 4), (1, 3), 4)
POOL = colour_pool(classes=6, datasets=1)


def portfolio(backbone: str) -> Portfolio:
    views = (View(backbone, 32), View(backbone, 48))
    metrics = {key: Metric(find_metric("root_l2")) for key in list_inputs(views, ("root_l2", False))}
    return Portfolio(views, (WeightedMode(name="unfitted"),), BackboneShelf("cpu"), metrics)


def measure(pool: ImagePool, learner: Portfolio, known: FeatureStore) -> float | None:
    return measure_task_s(pool, learner, SPEC, np.random.default_rng(0), known)


def test_no_network_runs_for_images_that_are_embedded(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = portfolio(tiny_backbone)
    known = FeatureStore(learner.shelf, MemoryBudget(2**40))
    for view in learner.views:
        known.embed(view, POOL.images, list(range(len(POOL.images))))
    embedded: list[int] = []
    monkeypatch.setattr(Backbone, "embed_layers", lambda *_, **__: embedded.append(1))
    seconds = measure(POOL, learner, known)
    assert seconds is not None and seconds > 0 and not embedded


def test_features_are_taken_over_under_other_keys(tiny_backbone: str) -> None:
    shelf, view = BackboneShelf("cpu"), View(tiny_backbone, 32)
    known, store = (FeatureStore(shelf, MemoryBudget(2**40)) for _ in range(2))
    features = known.embed(view, POOL.images[:4], [0, 1, 2, 3])
    store.take_over(known, view, ["b", "a", "b"], [1, 0, 1])
    store.take_over(known, view, ["a", "c"], [0, 3])
    assert (store.take(view, ["a", "b", "c"]) == features[[0, 1, 3]]).all()
    with pytest.raises(KeyError):
        store.take_over(known, view, ["d"], [9])


def test_where_no_task_can_be_drawn_nothing_is_measured(tiny_backbone: str) -> None:
    learner = portfolio(tiny_backbone)
    known = FeatureStore(learner.shelf, MemoryBudget(2**40))
    assert measure(colour_pool(classes=4, per_class=1), learner, known) is None
