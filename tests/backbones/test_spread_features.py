"""Features that others compute: the same to the bit as here, within the time, whatever is lost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from other_embedders import Others, spread_over
from synthetic import FakeClock, colour_pool

from autometa.backbones import View
from autometa.backbones.embedding_parts import Embedded, Part, Pass, embed_part, start_up, state_of
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shared_features import SharedFeatures
from autometa.backbones.shelf import BackboneShelf
from autometa.backbones.spread_features import SETUP_S, SpreadFeatures, Work
from autometa.core.budget import UNLIMITED, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted, ConfigError
from autometa.core.sharing import SharedWork

MEMORY = MemoryBudget(8 * 2**30)
POOL = colour_pool(classes=12, per_class=25)
KEYS = list(range(len(POOL.images)))


def store_of(spread: SpreadFeatures | None = None) -> FeatureStore:
    return FeatureStore(BackboneShelf("cpu"), MEMORY, spread=spread)


def here(view: View) -> torch.Tensor:
    return store_of().embed(view, POOL.images, KEYS)


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
@pytest.mark.parametrize("held", [True, False])
def test_features_are_those_from_here_to_the_bit(tiny_backbone: str, held: bool) -> None:
    view, others = View(tiny_backbone, 32, flip=True), Others()
    spread = spread_over(others)
    if held:
        spread.hold(POOL.images)
    store = store_of(spread)
    assert torch.equal(store.embed(view, POOL.images, KEYS), here(view))
    assert [len(part.rows) for part in others.parts] == [64, 64, 64, 300 - 4 * 64]  # the first batch was here
    assert {part.held for part in others.parts} == {held}
    assert len(others.held) == held and store.embedded(view) == len(KEYS)
    assert store.seconds_per_image(view) == spread.image_s[view.source]


@pytest.mark.medium
def test_another_engine_than_eager_gives_the_same_too(tiny_backbone: str) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    found, parts = [], list[Part]()
    for others in (Others(), None):
        shelf = BackboneShelf("cpu")
        shelf(tiny_backbone).prefer("onnxruntime", 32)
        spread = spread_over(others) if others else None
        store = FeatureStore(shelf, MEMORY, ahead=10**6, spread=spread)
        found.append(store.embed(View(tiny_backbone, 32), POOL.images, KEYS))
        parts += others.parts if others else []
    assert torch.equal(*found) and {part.own.engine for part in parts} == {"onnxruntime"}


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_a_further_store_asks_at_once_and_only_for_what_is_missing(tiny_backbone: str) -> None:
    view, others = View(tiny_backbone, 32), Others()
    spread = spread_over(others)
    store_of(spread).embed(view, POOL.images, KEYS)
    others.parts.clear()
    store = store_of(spread)
    store.embed(view, POOL.images[:100], KEYS[:100])
    assert sorted(row for part in others.parts for row in part.rows) == KEYS[:100]
    others.parts.clear()
    store.embed(view, POOL.images, KEYS)
    assert sorted(row for part in others.parts for row in part.rows) == KEYS[100:]


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_what_others_cannot_do_is_done_here_and_they_are_not_asked_again(tiny_backbone: str) -> None:
    def spoil(came: Embedded) -> Embedded:
        return replace(came, features=None, reason="no memory") if came.number == 1 else came

    view, lines = View(tiny_backbone, 32), list[str]()
    others = Others(spoil=spoil)
    spread = spread_over(others, lines)
    assert torch.equal(store_of(spread).embed(view, POOL.images, KEYS), here(view))
    assert lines == [f"{tiny_backbone}@32 is embedded here: no memory"] and others.cancelled == 1
    others.parts.clear()
    assert torch.equal(store_of(spread).embed(view, POOL.images, KEYS), here(view))
    assert not others.parts


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_where_nobody_is_left_the_rest_is_done_here(tiny_backbone: str) -> None:
    class Leaving(Others):
        def wait(self, timeout_s: float | None = None) -> Embedded:
            if self.places:
                self.places = 0
                return super().wait(timeout_s)
            raise TimeoutError

    view, lines = View(tiny_backbone, 32), list[str]()
    others = Leaving()
    assert torch.equal(store_of(spread_over(others, lines)).embed(view, POOL.images, KEYS), here(view))
    assert lines == [f"no machine is left: {tiny_backbone}@32 is embedded here"]


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_a_cluster_that_takes_nothing_is_done_without(tiny_backbone: str) -> None:
    class Full(Others):
        def hold(self, images: np.ndarray) -> None:
            raise ConfigError("--ray: full")

        def give(self, own: Pass, state: object, images: np.ndarray) -> None:
            raise ConfigError("--ray: full")

    view, lines = View(tiny_backbone, 32), list[str]()
    spread = spread_over(Full(), lines)
    spread.hold(POOL.images)
    assert torch.equal(store_of(spread).embed(view, POOL.images, KEYS), here(view))
    assert lines == ["--ray: full", f"{tiny_backbone}@32 is embedded here: --ray: full"]


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_the_deadline_holds_with_the_reserve_and_what_came_is_kept(tiny_backbone: str) -> None:
    clock, waited = FakeClock(), list[float | None]()

    class Slow(Others):
        def wait(self, timeout_s: float | None = None) -> Embedded:
            waited.append(timeout_s)
            if len(waited) == 1:
                clock.now += 7.0
                return super().wait(timeout_s)
            clock.now += timeout_s or 0.0
            raise TimeoutError

    view, others = View(tiny_backbone, 32), Slow()
    spread = spread_over(others)
    store = store_of(spread)
    spread.image_s[view.source] = 10.0  # so that a part is a batch, and all of them would be late
    store.speed(view).add(10.0)
    spread.travel_s = 0.5
    with pytest.raises(BudgetExhausted, match="elsewhere: no time is left"):
        store.embed(view, POOL.images, KEYS, TimeBudget(clock.now + 10.0, clock))
    assert clock.now <= 110.0 and waited[0] == 1.0
    assert all(seconds is not None and seconds <= 1.0 for seconds in waited)
    assert others.cancelled == 1 and store.embedded(view) == 64


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_others_are_asked_where_that_is_sooner(tiny_backbone: str) -> None:
    own = Pass.of(BackboneShelf("cpu")(tiny_backbone), 32, flip=False)
    others = Others(places=4)
    spread = SpreadFeatures(others)
    assert spread.pays(own, 1000, 1.0) and not spread.pays(own, 10, 1.0)
    assert spread.predict_s(1000, 1.0) == SETUP_S + 250.0 and spread.predict_s(10, 1.0) == 10.0
    others._known.add(own)
    assert spread.pays(own, 10, 1.0)  # its network is there
    others.places = 0
    assert not spread.pays(own, 1000, 1.0) and spread.predict_s(1000, 1.0) == 1000.0


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_setup_travel_and_gain_are_measured(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.backbones.spread_features.stopwatch", lambda: lambda: 6.0)
    others = Others(2, lambda came: replace(came, seconds=1.0, whole_s=5.75))
    spread = spread_over(others)
    network = BackboneShelf("cpu")(tiny_backbone)
    work = Work(Pass.of(network, 32, flip=False), 0.5, 50)
    found = list(spread.embed(network, work, POOL.images, KEYS[:100], UNLIMITED))
    assert [rows for rows, _ in found] == [KEYS[:50], KEYS[50:100]]
    assert (spread.setup_s, spread.travel_s) == (5.0, 0.25)
    others.spoil = lambda came: replace(came, seconds=1.0, whole_s=2.0)
    list(spread.embed(network, work, POOL.images, KEYS[:100], UNLIMITED))
    assert (spread.setup_s, spread.travel_s) == (5.0, 4.0)  # its network was there
    others._known.clear()
    list(spread.embed(network, work, POOL.images, KEYS[:100], UNLIMITED))
    assert (spread.setup_s, spread.travel_s) == (5.0, 4.0)  # a process may have started
    assert spread.gain == 2 * 25.0  # a part took a second there, and takes 25 s here
    others.places = 3
    assert spread.gain == 3 * 25.0


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_a_part_that_cannot_be_done_has_a_reason(tiny_backbone: str) -> None:
    network = BackboneShelf("cpu")(tiny_backbone)
    state, own = state_of(network), Pass.of(network, 32, flip=False)
    part = Part(3, own, np.arange(5), 2, held=True)
    done = embed_part(part, state, POOL.images)
    assert done.number == 3 and done.features is not None and done.whole_s >= done.seconds > 0
    np.testing.assert_array_equal(done.features[:2], network.embed_layers(POOL.images[:2], 32).numpy())
    cases = {
        " is there, 0.4.1 here": replace(
            part, versions=(*part.versions[:1], ("torch", "0.4.1"), part.versions[2])
        ),
        "engine openvino cannot be used there, but eager": replace(part, own=replace(own, engine="openvino")),
        "IndexError: ": replace(part, rows=np.array([len(POOL.images)])),
    }
    for reason, bad in cases.items():
        failed = embed_part(bad, state, POOL.images)
        assert failed.features is None and reason in failed.reason


@pytest.mark.medium
@pytest.mark.usefixtures("eager_only")
def test_weights_that_differ_are_another_network(tiny_backbone: str) -> None:
    shelf = BackboneShelf("cpu")
    plain = shelf(tiny_backbone)
    state = shelf.state(tiny_backbone)
    shelf.adopt(tiny_backbone, "tuned", {name: 2 * value for name, value in state.items()}, 32)
    view = View(tiny_backbone, 32, variant="tuned")
    spread = spread_over(Others())
    store = FeatureStore(shelf, MEMORY, spread=spread)
    store.embed(View(tiny_backbone, 32), POOL.images, KEYS)
    tuned = store.embed(view, POOL.images, KEYS)
    assert torch.equal(tuned, FeatureStore(shelf, MEMORY).embed(view, POOL.images, KEYS))
    assert not torch.equal(tuned, plain.embed(POOL.images, 32))


def test_a_process_computes_in_the_threads_that_it_got(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    start_up(3)
    assert set_to == [3] and os.environ["OMP_NUM_THREADS"] == os.environ["METADL_CORES"] == "3"


def test_features_are_not_shared_and_spread_at_once(tmp_path: Path) -> None:
    shared = SharedFeatures(SharedWork(tmp_path, "cpu-1"))
    with pytest.raises(ValueError, match="not both"):
        FeatureStore(BackboneShelf("cpu"), MEMORY, shared=shared, spread=spread_over(Others()))
