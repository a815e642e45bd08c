"""Copies of backbones: trained on the classes of other folds, then on the shelf like any network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from shop_cases import hard_pool, make_forecast
from synthetic import TickingClock

from autometa.backbones import TUNED, View
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, TooLittleMemory
from autometa.search import copy_training
from autometa.search.copy_training import TUNED_STAGES, TURNS
from autometa.search.variant_training import VariantTrainer

pytestmark = pytest.mark.usefixtures("eager_only")

POOL = hard_pool()
ROWS = np.flatnonzero(POOL.labels % 3 > 0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Backbones ask for all cores; tiny ones would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(backbone: str, lines: list[str] | None = None, **forecast: Any) -> VariantTrainer:
    return VariantTrainer(POOL, ROWS, make_forecast(backbone, **forecast), (lines or []).append, 35)


@pytest.mark.medium
def test_a_copy_is_trained_and_the_network_stays(tiny_backbone: str) -> None:
    lines = ["begin"]
    trainer, view = make(tiny_backbone, lines), View(tiny_backbone, 32, variant=TUNED)
    shelf = trainer.forecast.shelf
    before = {name: value.clone() for name, value in shelf.state(tiny_backbone).items()}
    trainer.train(view, TimeBudget.of(60), turned=False)
    after, copy = shelf.state(tiny_backbone), shelf.state(tiny_backbone, TUNED)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(not torch.equal(copy[name], value) for name, value in before.items())
    old, new = (shelf(tiny_backbone, variant).embed(POOL.images[:4], 32) for variant in ("", TUNED))
    assert torch.isfinite(new).all() and not torch.allclose(old, new)
    assert any("35 steps" in line and f"{len(ROWS)} images of 10 classes" in line for line in lines)


def given_to_tuning(monkeypatch: pytest.MonkeyPatch, trainer: VariantTrainer, view: View) -> tuple[Any, Any]:
    """The images and labels that tuning is given."""
    given: list[Any] = []
    tune = copy_training.tune_tail

    def listening(encoder: Any, images: Any, labels: torch.Tensor, *rest: Any) -> Any:
        given.extend([images.images, labels])
        return tune(encoder, images, labels, *rest)

    monkeypatch.setattr(copy_training, "tune_tail", listening)
    trainer.train(view, TimeBudget.of(60), turned=True)
    return given[0], given[1]


@pytest.mark.medium
def test_turned_images_are_further_classes(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(tiny_backbone, 32, variant=TUNED)
    images, labels = given_to_tuning(monkeypatch, make(tiny_backbone), view)
    assert len(images) == len(labels) == TURNS * len(ROWS)
    assert (images[: len(ROWS)] == POOL.images[ROWS]).all()
    assert (images[len(ROWS) : 2 * len(ROWS)] == POOL.images[ROWS][..., ::-1, ::-1]).all()
    assert labels.unique().numel() == TURNS * 10
    assert (labels[: len(ROWS)].numpy() == POOL.labels[ROWS]).all()


@pytest.mark.medium
def test_turned_images_are_left_out_where_memory_is_short(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_training, "TRAINING_BYTES", 0)
    trainer, view = make(tiny_backbone), View(tiny_backbone, 32, variant=TUNED)
    fits = 1.5 * TURNS * POOL.images[ROWS].nbytes
    monkeypatch.setattr(type(trainer.forecast.limits.memory), "fits", lambda _, n: n <= fits)
    _, labels = given_to_tuning(monkeypatch, trainer, view)
    assert labels.unique().numel() == 10


@pytest.mark.medium
def test_a_family_trains_a_copy(tiny_backbone: str) -> None:
    trainer, view = make(tiny_backbone, ["begin"]), View(tiny_backbone, 32, variant="prototypical")
    trainer.train(view, TimeBudget.of(6, TickingClock(0.01)), turned=True)
    network = trainer.forecast.shelf(tiny_backbone, "prototypical")
    assert torch.isfinite(network.embed(POOL.images[:4], 32)).all()


def test_without_memory_or_time_there_is_no_copy(tiny_backbone: str) -> None:
    view = View(tiny_backbone, 32, variant=TUNED)
    short = make(tiny_backbone, gigabytes=0.1)
    with pytest.raises(BudgetExhausted, match="too little memory"):
        short.train(view, TimeBudget.of(60), turned=False)
    late = make(tiny_backbone)
    with pytest.raises(BudgetExhausted):
        late.train(view, TimeBudget.of(-1), turned=False)
    for trainer in (short, late):
        assert trainer.forecast.shelf.built(tiny_backbone, TUNED) is None


@pytest.mark.medium
def test_fewer_stages_are_tuned_where_memory_is_short(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["begin"]
    trainer, view = make(tiny_backbone, lines), View(tiny_backbone, 32, variant=TUNED)
    tune, depths = copy_training.tune_tail, []

    def shallow(encoder: Any, *rest: Any) -> Any:
        depths.append(len(encoder.tail))
        if len(encoder.tail) > 1:
            raise TooLittleMemory("tuning takes 9 MiB, 1 MiB are left")
        return tune(encoder, *rest)

    monkeypatch.setattr(copy_training, "tune_tail", shallow)
    trainer.train(view, TimeBudget.of(60), turned=False)
    assert depths == [TUNED_STAGES, 1]
    assert any("fewer stages are tuned: tuning takes 9 MiB" in line for line in lines)
    assert trainer.step_memory is not None and trainer.step_memory.measured_bytes is not None
    trainer.train(
        View(tiny_backbone, 32, variant="prototypical"), TimeBudget.of(6, TickingClock(0.01)), turned=False
    )
    assert trainer.step_memory is not None, "families are planned, too"
