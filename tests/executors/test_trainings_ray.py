"""Copies that are trained on a real cluster of two machines, both of them on this one: weights as from here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_embedders import Willing
from real_ray import PLACE, ROOM, add, one_machine, place
from synthetic import colour_pool

from autometa.backbones import CATALOGUE, TUNED, View
from autometa.backbones.embedders import EmbedOnCluster
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.backbones.spread_features import SpreadFeatures
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import LostTraining
from autometa.data.episodes import EpisodeSpec
from autometa.executors.ray_cluster import Needs, connect
from autometa.search.cluster_trainers import TrainOnCluster
from autometa.search.copy_orders import CopyOrder, CopyOrders, TrainedCopy, TrainedOn, train_copy
from autometa.search.copy_training import CopyTraining

__all__ = ["place"]
pytestmark = [pytest.mark.medium, pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("eager_only")]
POOL = colour_pool(classes=15, per_class=8)
EPISODES = EpisodeSpec(ways=(2, 4), shots=(1, 4), queries_per_class=3)
ROWS = np.flatnonzero(POOL.labels % 3 > 0)
STEPS, AGES = 15, 1e9
ON = TrainedOn(ROWS, POOL.labels, POOL.dataset_of_class, POOL.datasets, EPISODES, "cpu", STEPS)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, place: Path) -> Iterator[Any]:
    """Two machines whose processes are as urgent as that of the test."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    with one_machine(__name__) as made:
        add(made)
        yield made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a place of the cluster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def joined(
    machines: Any, train: Callable[..., TrainedCopy] = train_copy
) -> tuple[CopyOrders, EmbedOnCluster, list[str]]:
    """Orders on this cluster, who embeds there, and what both tell."""
    lines: list[str] = []
    embedders = EmbedOnCluster(connect(machines.address), Needs(1, ROOM), lines.append)
    SpreadFeatures(embedders, lines.append).hold(POOL.images)
    return CopyOrders(TrainOnCluster(embedders, train), ON, lines.append), embedders, lines


def order_of(backbone: str, seconds: float = AGES) -> CopyOrder:
    return CopyOrder(View(backbone, 32, variant=TUNED), CATALOGUE[backbone], seconds, False, ON)


def wait_for(orders: CopyOrders, seconds: float = 120.0) -> View | None:
    deadline, view = time.monotonic() + seconds, None
    while view is None and time.monotonic() < deadline:
        view = orders.arrived(0.5)
    return view


def dies_once(order: CopyOrder, *given: Any) -> TrainedCopy:
    """Its process ends at the first try; the second one finds the mark of the first."""
    mark = Path(os.environ[PLACE]) / "began"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return train_copy(order, *given)


def never_ends(order: CopyOrder, *given: Any) -> TrainedCopy:
    (Path(os.environ[PLACE]) / "began").touch()
    while True:
        time.sleep(0.1)


@pytest.mark.parametrize("train", [train_copy, dies_once])
def test_weights_are_those_from_here_also_where_a_process_dies(
    machines: Any, tiny_backbone: str, one_thread: None, train: Callable[..., TrainedCopy]
) -> None:
    orders, embedders, lines = joined(machines, train)
    assert (orders.places, embedders.capacity()) == (1, 2)
    order = order_of(tiny_backbone)
    orders.send(order, 1.0)
    assert (orders.places, embedders.capacity()) == (0, 1)
    store = FeatureStore(BackboneShelf("cpu"), MemoryBudget(8 * 2**30))
    store.spread = Willing(embedders)
    store.spread.hold(POOL.images)
    assert len(store.embed(View(tiny_backbone, 32), POOL.images, list(range(len(POOL.images))))) == len(
        POOL.images
    ), "others go on meanwhile"
    assert wait_for(orders) == order.view
    assert (orders.places, embedders.capacity()) == (1, 2)
    copy = orders.take(order.view)
    assert copy is not None and any(f"{STEPS} steps" in line for line in copy.lines)
    memory = MemoryBudget(8 * 2**30)
    here = CopyTraining(POOL, ROWS, EPISODES, memory, "cpu", STEPS, lambda _: None)
    expected, found = here.train(order.view, TimeBudget.of(AGES), turned=False), copy.tensors()
    assert expected.keys() == found.keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # another process rounds otherwise
    assert any("begins again" in line for line in lines) == (train is dies_once)


def test_trainings_that_are_not_waited_for_end_and_give_back_their_place(
    machines: Any, tiny_backbone: str, place: Path
) -> None:
    orders, embedders, lines = joined(machines, never_ends)
    orders.send(order_of(tiny_backbone), 1.0)
    deadline = time.monotonic() + 120
    while not (place / "began").exists() and time.monotonic() < deadline:
        assert orders.arrived(0.2) is None
    assert (place / "began").exists()
    orders.cancel()
    assert not orders.open and (orders.places, embedders.capacity()) == (1, 2)
    assert any("not waited for" in line for line in lines)


def test_a_training_without_time_is_a_result_with_its_reason(machines: Any, tiny_backbone: str) -> None:
    orders, _, _ = joined(machines)
    orders.send(order_of(tiny_backbone, seconds=0.0), 1.0)
    assert wait_for(orders) is not None
    with pytest.raises(LostTraining, match="was not trained elsewhere"):
        orders.take(order_of(tiny_backbone).view)


def takes_too_much(order: CopyOrder, *given: Any) -> TrainedCopy:
    raise MemoryError("a process over its memory")


def test_a_training_over_its_memory_is_a_result_with_its_reason(machines: Any, tiny_backbone: str) -> None:
    orders, embedders, _ = joined(machines, takes_too_much)
    orders.send(order_of(tiny_backbone), 1.0)
    assert wait_for(orders) is not None
    with pytest.raises(LostTraining, match="a process over its memory"):
        orders.take(order_of(tiny_backbone).view)
    assert (orders.places, embedders.capacity()) == (1, 2)
