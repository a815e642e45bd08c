"""The shop: what it sells next, what comes of that, and that nothing makes a run late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from shop_cases import EPISODES, POLICY, TEST, hard_pool, make_forecast, make_shop
from synthetic import colour_pool

from autometa.backbones import TUNED, Backbone, View
from autometa.backbones.engines import EngineChoice
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, DataError
from autometa.heads.modes import SIX_MODES
from autometa.heads.refine import Refinement
from autometa.planning.forecast import PROBE_PX
from autometa.search.draft import QUICK_MODES
from autometa.search.evidence import Mixture
from autometa.search.prices import TRAIN_GUESS_S, TRUNK_SHARE
from autometa.search.purchases import Purchase
from autometa.search.shop import Shop
from autometa.search.weighing import shrink_gain
from autometa.search.workbench import TRAINING_FOLD, Workbench

pytestmark = pytest.mark.usefixtures("eager_only")


def fail(error: BaseException) -> Callable[..., Any]:
    """A function that raises an error."""

    def raising(*_: Any, **__: Any) -> Any:
        raise error

    return raising


def buy(shop: Shop, kind: Any, view: View, orientations: int = 1) -> Any:
    return shop.buy(Purchase(kind, view, orientations), 1.0, 0.01)


@pytest.fixture
def shop(tiny_backbone: str) -> Shop:
    """With its first view bought."""
    shop = make_shop(tiny_backbone)
    assert buy(shop, "view", shop.first).gain is None
    return shop


def adopt_copy(shop: Shop) -> View:
    """A copy of the network with other weights, on the shelf as if it was trained."""
    state = shop.prices.forecast.shelf(shop.first.backbone).model.state_dict()
    noise = torch.Generator().manual_seed(1)
    other = {
        name: value + 0.02 * torch.randn(value.shape, generator=noise) if value.is_floating_point() else value
        for name, value in state.items()
    }
    shop.prices.forecast.shelf.adopt(shop.first.backbone, TUNED, other, shop.first.px)
    return View(shop.first.backbone, shop.first.px, variant=TUNED)


@pytest.mark.medium
def test_what_is_bought_joins_the_portfolio_and_is_measured(tiny_backbone: str) -> None:
    shop = make_shop(tiny_backbone, pool=hard_pool(spread=90.0))
    assert buy(shop, "view", shop.first).gain is None

    def accuracy() -> float:
        mixture = Mixture(shop.draft.weights(), dict.fromkeys(QUICK_MODES, 1.0))
        return float(np.mean(shop.draft.evidence.mean(mixture, range(3))))

    finer, before = View(tiny_backbone, 48), accuracy()
    receipt = buy(shop, "view", finer)
    after = accuracy()
    assert receipt.gain == pytest.approx(after - before)
    assert receipt.error is not None and receipt.error > 0
    assert set(shop.draft.views) == {shop.first, finer}
    assert sum(shop.draft.weights().values()) == pytest.approx(1.0)
    assert shop.gains.expect(receipt.purchase, {}, {}) == shrink_gain(receipt.gain, receipt.error)
    turned = buy(shop, "turned", shop.first, 2)
    assert turned.gain is not None and shop.draft.bench.orientations[shop.first] == 2
    assert [receipt.note for receipt in shop.receipts] == ["", "", ""]


@pytest.mark.medium
def test_everything_is_sold_once(shop: Shop, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sold = []
    monkeypatch.setattr(shop.gains, "expect", lambda *_: 0.01)
    monkeypatch.setattr(shop, "_compare", lambda *_: (0.0, 0.01))
    while (offer := shop.choose()) is not None:
        assert offer[1] > 0
        shop.buy(*offer)
        sold.append(str(offer[0]))
    finer = View(tiny_backbone, 48)
    steps = [f"{view} in {n} orientations" for view in (shop.first, finer) for n in (2, 4, 8)]
    assert sorted(sold) == sorted([str(finer), *steps])
    assert "nothing more to buy" in shop.why_ended()


def test_the_most_gain_per_second_comes_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = {"tiny@48": 0.03, "tiny@32 in 2 orientations": 0.02}
    monkeypatch.setattr(shop.gains, "expect", lambda purchase, *_: gains[str(purchase)])
    monkeypatch.setattr(shop.prices, "seconds", lambda purchase: 2.0 if purchase.kind == "view" else 1.0)
    monkeypatch.setattr(shop.prices, "serving_s", lambda _: 0.0)
    assert shop.choose() == (Purchase("turned", shop.first, 2), 1.0, 0.02)
    gains["tiny@48"] = 0.05
    offer = shop.choose()
    assert offer is not None and str(offer[0]) == "tiny@48"
    gains.update(dict.fromkeys(gains, 1e-6))
    assert shop.choose() is None


@pytest.mark.parametrize(
    "error",
    [
        BudgetExhausted("late"),
        DataError("no images"),
        torch.linalg.LinAlgError("not positive definite"),
        MemoryError("full"),
        OSError("disk full"),
        ValueError("odd"),
    ],
)
@pytest.mark.parametrize("step", ["_make", "_ask"])
def test_a_purchase_that_fails_is_a_receipt_and_not_offered_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    views, weights, answers = shop.draft.views, shop.draft.weights(), shop.draft.answers
    offered = {str(purchase) for purchase in shop._list()}
    if step == "_make":
        monkeypatch.setattr(shop.draft.bench, "take_in", fail(error))
    else:
        monkeypatch.setattr(shop.draft, "answer", fail(error))
    receipt = buy(shop, "view", View(shop.first.backbone, 48))
    assert receipt.gain is None and receipt.note == f"{type(error).__name__}: {error}"
    monkeypatch.undo()
    assert (shop.draft.views, shop.draft.weights()) == (views, weights)
    assert all(ours is theirs for ours, theirs in zip(shop.draft.answers, answers, strict=True))
    assert {str(purchase) for purchase in shop._list()} == offered - {"tiny@48"}
    assert "1 failed" in shop.why_ended()
    assert shop.gains.learn_from([receipt.record()]) == 0


@pytest.mark.medium
@pytest.mark.parametrize("worse", [True, False])
def test_turned_classes_that_make_it_worse_are_undone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, worse: bool
) -> None:
    """They take the place of the metrics before, so that weights could not get rid of them."""
    buy(shop, "view", View(shop.first.backbone, 48))
    bench, draft = shop.draft.bench, shop.draft
    every = list(draft.mixture().modes)
    metrics = bench.metrics(draft.views, every)
    weights, answers, unknown = draft.weights(), draft.answers, bench.count_unknown(every)
    monkeypatch.setattr(shop, "_compare", lambda *_: (-0.01 if worse else 0.01, 0.001))
    receipt = buy(shop, "turned", shop.first, 2)
    again = bench.metrics(draft.views, every)
    same = [again[key] is metrics[key] for key in metrics]
    assert bench.orientations[shop.first] == (1 if worse else 2)
    if worse:
        assert receipt.note == "worse, so undone" and receipt.note in receipt.outcome()
        assert all(same) and draft.weights() == weights and draft.answers is answers
        assert bench.count_unknown(every) == unknown
        assert "1 undone" in shop.why_ended()
        offered = {str(purchase) for purchase in shop._list()}
        assert not any(name.startswith("tiny@32 in") for name in offered)
        assert "tiny@48 in 2 orientations" in offered
    else:
        assert not receipt.note and not all(same)


def test_an_interrupt_is_no_failed_purchase(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.draft.bench, "take_in", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        buy(shop, "view", View(shop.first.backbone, 48))


def test_without_its_first_view_a_shop_has_none(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = make_shop(tiny_backbone)
    monkeypatch.setattr(shop.draft.bench, "take_in", fail(BudgetExhausted("late")))
    assert "late" in buy(shop, "view", shop.first).note
    assert shop.draft.views == [] and shop.draft.answers == [] and shop.draft.weights() == {}


@pytest.mark.medium
def test_trained_copies_are_asked_about_the_fold_that_they_have_not_seen(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, asked = adopt_copy(shop), []
    answer = shop.draft.evidence.answer

    def listening(mixture: Any, fold: int) -> Any:
        asked.append((fold, set(mixture.views)))
        return answer(mixture, fold)

    monkeypatch.setattr(shop.draft.evidence, "answer", listening)
    monkeypatch.setattr(shop.trainer, "train", lambda *_, **__: None)
    before = shop.draft.accuracies()
    receipt = buy(shop, "trained", copy)
    shop.draft.accuracies_with(Refinement(step=0.3))
    assert copy in shop.draft.weights()
    assert all(fold == TRAINING_FOLD for fold, views in asked if copy in views)
    assert {fold for fold, _ in asked} == {0, 1, 2}
    after = shop.draft.accuracies()
    gain = float((after[TRAINING_FOLD] - before[TRAINING_FOLD]).mean())
    assert receipt.gain == pytest.approx(gain)  # other folds would only dilute it
    assert receipt.error == pytest.approx(
        float((after[TRAINING_FOLD] - before[TRAINING_FOLD]).std(ddof=1) / EPISODES**0.5)
    )


def test_a_slow_machine_has_longer_for_its_first_training(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(tiny_backbone, make_forecast(tiny_backbone, seconds=4000.0))
    copy = Purchase("trained", View(tiny_backbone, 32, variant=TUNED))
    assert shop.prices.train_s(copy) == TRAIN_GUESS_S
    slow = EngineChoice("eager", None, 0.0, {"eager": 8.0})
    monkeypatch.setattr(Backbone, "choice", lambda *_: slow)
    prepare_s = 8.0 * TRUNK_SHARE * len(shop.trainer.rows) * (32 / PROBE_PX) ** 2
    assert prepare_s < shop.prices.forecast.policy.tune_prepare_share * shop.prices.train_s(copy)
    shop.prices.trained_s = 7.0
    assert shop.prices.train_s(copy) == 7.0


def test_copies_are_trained_on_the_classes_of_other_folds(shop: Shop) -> None:
    trained_on = set(shop.draft.bench.pool.labels[shop.trainer.rows])
    assert trained_on == set(range(15)) - set(shop.draft.bench.folds[TRAINING_FOLD].classes)


@pytest.mark.medium
def test_weights_without_a_fold_do_not_know_it(shop: Shop) -> None:
    buy(shop, "view", View(shop.first.backbone, 48))
    before = shop.draft.weights(without=1), shop.draft.weights(without=0)
    for alone in shop.draft.alone.values():
        alone[1] = np.random.default_rng(0).uniform()
        break
    assert shop.draft.weights(without=1) == before[0]
    assert shop.draft.weights(without=0) != before[1]


@pytest.mark.parametrize("run_s", [4.0, 120.0])
def test_nothing_is_sold_that_meta_test_has_no_time_for(tiny_backbone: str, run_s: float) -> None:
    shop = make_shop(tiny_backbone, make_forecast(tiny_backbone, run=TimeBudget.of(run_s)))
    buy(shop, "view", shop.first)
    if run_s > 100:
        assert (
            shop.choose() is not None
            and shop.prices.may_refine(1)
            and shop.prices.weighed_modes() is not None
        )
        shop.prices.forecast.limits.run.deadline -= run_s - 4
    assert shop.choose() is None and not shop.prices.may_refine(1)
    assert "fits in" in shop.why_ended()


@pytest.mark.medium
def test_a_purchase_ends_before_meta_test_must_begin(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meta-training may last 1000 s, the whole run 60 s."""
    forecast = make_forecast(tiny_backbone, train=TimeBudget.of(1000), run=TimeBudget.of(60))
    shop, given = make_shop(tiny_backbone, forecast), []
    take_in = Workbench.take_in

    def listening(bench: Workbench, view: View, orientations: int, budget: TimeBudget) -> None:
        given.append(budget.left_s())
        take_in(bench, view, orientations, budget)

    monkeypatch.setattr(Workbench, "take_in", listening)
    buy(shop, "view", shop.first)
    buy(shop, "view", View(tiny_backbone, 48))
    for seconds in given:
        assert 0 < seconds < 60 - forecast.finish_s([shop.first]) - forecast.meta_test_s([shop.first])


def test_slow_evidence_is_reserved_for(shop: Shop) -> None:
    spare_s = shop.prices.spare_s()
    quick, known = tuple(shop.draft.quick_modes), shop.draft.evidence._asked_s
    known[quick] = 2.0  # of three folds, which are asked twice at the end
    assert shop.prices.spare_s() < spare_s - 10
    assert shop.prices.weighed_modes() is not None
    known[quick] = 20.0
    assert shop.prices.weighed_modes() is None and shop.choose() is None


def test_where_there_is_no_time_for_all_modes_a_few_are_weighed(shop: Shop) -> None:
    every, known = shop.draft.mixture().modes, shop.draft.evidence._asked_s
    assert shop.prices.weighed_modes() == every
    known[tuple(every)] = 30.0
    assert shop.prices.weighed_modes() == shop.draft.quick_modes
    assert not shop.prices.may_refine(1)


@pytest.mark.medium
def test_what_is_known_of_other_modes_is_not_paid_for_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, modes = shop.draft.bench, SIX_MODES
    missing = bench.count_unknown(modes)
    assert missing == 3 * 5  # folds; mild metrics, and three layers
    shop.draft.accuracies_with(Refinement())
    assert bench.count_unknown(modes) == 0
    monkeypatch.setattr(shop, "_compare", lambda *_: (0.0, 0.01))
    buy(shop, "turned", shop.first, 2)
    assert bench.count_unknown(modes) == missing


def test_seconds_in_meta_test_count_in_the_price(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view is dearer than its embedding: meta-test must embed it, too."""
    gains = {"tiny@48": 0.03, "tiny@32 in 2 orientations": 0.02}
    monkeypatch.setattr(shop.gains, "expect", lambda purchase, *_: gains[str(purchase)])
    monkeypatch.setattr(shop.prices, "seconds", lambda _: 1.0)
    monkeypatch.setattr(shop.prices, "serving_s", lambda purchase: float(purchase.kind == "view"))
    offer = shop.choose()
    assert offer is not None and offer[0].kind == "turned"
    monkeypatch.undo()
    view, turned = Purchase("view", View(shop.first.backbone, 48)), Purchase("turned", shop.first, 2)
    assert shop.prices.serving_s(view) > shop.prices.serving_s(turned) == 0


@pytest.mark.medium
def test_without_memory_nothing_is_sold(tiny_backbone: str) -> None:
    shop = make_shop(tiny_backbone, make_forecast(tiny_backbone, gigabytes=0.2))
    buy(shop, "view", shop.first)
    assert shop.choose() is None


def test_without_folds_views_are_sold_by_what_is_expected(tiny_backbone: str) -> None:
    shop = make_shop(tiny_backbone, pool=colour_pool(classes=3, datasets=1))
    buy(shop, "view", shop.first)
    assert shop.draft.bench.folds == [] and shop.draft.answers == []
    offer = shop.choose()
    assert offer is not None
    receipt = shop.buy(*offer)
    assert receipt.gain is None and receipt.note == ""
    assert list(shop.draft.weights().values()) == [1 / len(shop.draft.views)] * len(shop.draft.views)


def test_what_an_earlier_run_has_lost_with_is_not_bought_again(shop: Shop) -> None:
    shop.gains.learn_from(
        [{"kind": "view", "purchase": "tiny@48", "expected": 0.02, "gain": -0.03, "error": 0.001}]
    )
    bought = set()
    while (offer := shop.choose()) is not None:
        shop.buy(*offer)
        bought.add(str(offer[0]))
    assert "tiny@48" not in bought


def test_the_price_of_a_training_is_in_its_seconds(tiny_backbone: str) -> None:
    shop = make_shop(tiny_backbone, tune_steps=40, families=("prototypical",))
    buy(shop, "view", shop.first)
    tuned, family = (
        Purchase("trained", View(tiny_backbone, 32, variant=name)) for name in (TUNED, "prototypical")
    )
    spare_s = shop.prices.spare_s()
    assert shop.prices.seconds(tuned) > 10
    assert POLICY.family_s(spare_s) <= shop.prices.seconds(family) < spare_s
    shop.prices.forecast.limits.train.deadline = shop.prices.forecast.limits.train.clock() + 12
    assert not shop.prices.fits(tuned, shop.prices.seconds(tuned))  # too little time is left to begin


def test_hardly_any_class_to_learn_from_is_no_error(tiny_backbone: str) -> None:
    pool = hard_pool(classes=4, per_class=2)
    shop = make_shop(tiny_backbone, pool=pool)
    assert len(shop.draft.bench.folds) == 2
    assert buy(shop, "view", shop.first).note == ""
    assert buy(shop, "turned", shop.first, 2).gain is not None
    assert TEST.episodes.ways[1] > 2 and len(shop.draft.answers) == 2
