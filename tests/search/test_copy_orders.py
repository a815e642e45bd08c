"""Copies that others train while the search buys other things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shop_cases import TEST, hard_pool, make_forecast, make_shop
from synthetic import FakeClock

from autometa.backbones import CATALOGUE, TUNED, View
from autometa.backbones.embedding_parts import State
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ConfigError
from autometa.executors.executor import Sequential
from autometa.search.copy_orders import CopyOrder, CopyOrders, TrainedCopy, TrainedOn, train_copy
from autometa.search.purchases import Purchase
from autometa.search.shop import LATE, Shop

pytestmark = [pytest.mark.usefixtures("eager_only"), pytest.mark.medium]
POOL = hard_pool()
STEPS, AGES = 20, 1e9
"""Of a training; and seconds in which no time passes that rates would notice."""


class OtherTrainers(Sequential[CopyOrder, TrainedCopy]):
    """Trains here, when it is waited for, as if there were so many processes elsewhere. `spoil` changes what comes;
    nothing comes while they are `busy`, and nothing is taken where they are `full`."""

    def __init__(
        self, places: int = 1, spoil: Callable[[TrainedCopy], TrainedCopy] = lambda came: came
    ) -> None:
        super().__init__(self._train)
        self.places, self.spoil = places, spoil
        self.busy = self.full = False
        self.sent, self.cancelled = list[CopyOrder](), 0
        self._states: dict[str, State] = {}

    def give(self, backbone: str, state: Callable[[], State]) -> None:
        if self.full:
            raise ConfigError("the store is full")
        self._states[backbone] = state()

    def submit(self, unit: CopyOrder) -> None:
        self.sent.append(unit)
        super().submit(unit)

    def wait(self, timeout_s: float | None = None) -> TrainedCopy:
        if self.busy:
            raise TimeoutError
        return super().wait(timeout_s)

    def capacity(self) -> int:
        return self.places

    def cancel(self) -> None:
        self.cancelled += 1
        super().cancel()

    def _train(self, order: CopyOrder) -> TrainedCopy:
        threads, n_bytes = torch.get_num_threads(), 8 * 2**30
        return self.spoil(train_copy(order, self._states[order.view.backbone], POOL.images, threads, n_bytes))


def shop_with(backbone: str, trainers: OtherTrainers | None, **given: Any) -> tuple[Shop, list[str]]:
    """A shop that has bought its first view, and what it tells."""
    given.setdefault("forecast", make_forecast(backbone, seconds=AGES))
    shop, lines = make_shop(backbone, pool=POOL, tune_steps=STEPS, **given), list[str]()
    if trainers is not None:
        on = TrainedOn(
            shop.trainer.rows, POOL.labels, POOL.dataset_of_class, POOL.datasets, TEST.episodes, "cpu", STEPS
        )
        shop.prices.orders = CopyOrders(trainers, on, lines.append)
    shop.buy(Purchase("view", shop.first), 1.0, 0.01)
    shop.prices.trained_s = AGES  # so that a training may take as long
    return shop, lines


def test_a_copy_from_elsewhere_is_the_one_that_is_trained_here(tiny_backbone: str) -> None:
    trainers = OtherTrainers()
    shop, lines = shop_with(tiny_backbone, trainers)
    copy = Purchase("trained", View(tiny_backbone, 32, variant=TUNED))
    offer = shop.choose()
    assert offer is not None and offer[0] == copy and [order.view for order in trainers.sent] == [copy.view]
    receipt = shop.buy(*offer)
    here, _ = shop_with(tiny_backbone, None)
    receipt_here = here.buy(copy, *offer[1:])
    assert (receipt.gain, receipt.error, receipt.note) == (receipt_here.gain, receipt_here.error, "")
    ours, theirs = (each.prices.forecast.shelf.state(tiny_backbone, TUNED) for each in (here, shop))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(f"{STEPS} steps" in line for line in lines) and shop.trainer.step_memory is not None
    assert shop.prices.trained_s == AGES, "nothing was trained here"


def test_other_things_are_bought_while_a_copy_is_trained(tiny_backbone: str) -> None:
    trainers = OtherTrainers()
    trainers.busy = True
    shop, _ = shop_with(tiny_backbone, trainers)
    spare_s = shop.prices.spare_s()
    bought = []
    for _ in range(2):
        offer = shop.choose()
        assert offer is not None
        bought.append(shop.buy(*offer).purchase)
    assert all(purchase.kind != "trained" for purchase in bought) and len(trainers.sent) == 1
    assert 0 < shop.prices.reserved_s < spare_s
    trainers.busy = False
    offer = shop.choose()
    assert offer is not None and offer[0].view.variant == TUNED and shop.prices.reserved_s == 0
    shop.end_orders()
    assert trainers.cancelled == 0, "nothing was left"


def test_what_is_lost_or_refused_elsewhere_leaves_the_portfolio_as_it_was(tiny_backbone: str) -> None:
    lost = OtherTrainers(spoil=lambda came: TrainedCopy(came.view, reason="its machine was lost"))
    shop, _ = shop_with(tiny_backbone, lost)
    before, offer = shop.draft.weights(), shop.choose()
    assert offer is not None
    receipt = shop.buy(*offer)
    assert receipt.gain is None and "LostTraining" in receipt.note and "its machine was lost" in receipt.note
    assert shop.draft.weights() == before and len(lost.sent) == 1
    full = OtherTrainers()
    full.full = True
    shop, lines = shop_with(tiny_backbone, full)
    assert shop.choose() is not None and not full.sent
    assert shop.choose() is not None and lines == ["copies are trained here: the store is full"]


def test_a_cluster_that_takes_nothing_more_costs_what_it_was_given(tiny_backbone: str) -> None:
    trainers = OtherTrainers()
    shop, lines = shop_with(tiny_backbone, trainers)

    def refuse(timeout_s: float | None = None) -> TrainedCopy:
        raise ConfigError("the cluster takes nothing more")

    trainers.wait = refuse  # type: ignore[method-assign]
    offer = shop.choose()
    assert offer is not None and shop.prices.reserved_s == 0 and trainers.cancelled == 1
    assert len(trainers.sent) == 1 and "copies are trained here: the cluster takes nothing more" in lines
    shop.choose()
    assert len(trainers.sent) == 1, "nothing is ordered any more"


def test_nobody_waits_longer_than_the_budget_and_what_comes_too_late_is_left(tiny_backbone: str) -> None:
    clock = FakeClock()
    budget = TimeBudget.of(1000.0, clock)
    forecast = make_forecast(tiny_backbone, train=budget, run=budget, memory=MemoryBudget(8 * 2**30))
    assert isinstance(forecast.limits, Limits)
    trainers = OtherTrainers()
    trainers.busy = True
    shop, lines = shop_with(tiny_backbone, trainers, forecast=forecast)
    assert shop.choose() is not None and trainers.sent[0].seconds < budget.left_s()
    trainers.busy = False
    clock.now = budget.deadline - 0.01
    assert shop.choose() is None
    assert [receipt.note for receipt in shop.receipts[1:]] == [LATE] and LATE in lines[-1]
    trainers.busy = True
    shop, lines = shop_with(tiny_backbone, trainers)
    assert shop.choose() is not None and shop.orders is not None and shop.orders.open
    shop.end_orders()
    assert trainers.cancelled == 1 and not shop.orders.open and shop.prices.reserved_s == 0
    assert any("not waited for" in line for line in lines)


def test_another_version_elsewhere_trains_nothing(tiny_backbone: str) -> None:
    on = TrainedOn(
        POOL.labels, POOL.labels, POOL.dataset_of_class, POOL.datasets, TEST.episodes, "cpu", STEPS
    )
    versions = (("parts of images", "0"), ("torch", "1.0"), ("timm", "1.0"))
    view, spec = View(tiny_backbone, 32, variant=TUNED), CATALOGUE[tiny_backbone]
    copy = train_copy(CopyOrder(view, spec, 9.0, False, on, versions), {}, POOL.images, 1, 2**30)
    assert copy.state is None and "parts of images" in copy.reason and "0 here" in copy.reason
