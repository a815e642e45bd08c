"""The shop: which purchase comes next, and what it changes in the portfolio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autometa.backbones import TUNED, View, find_spec
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import FAILURES
from autometa.core.settings import Settings
from autometa.evaluation.accuracy import Scores
from autometa.search.copy_orders import CopyOrder, CopyOrders
from autometa.search.draft import PortfolioDraft
from autometa.search.prices import Prices
from autometa.search.purchases import Gains, Purchase, Receipt, list_purchases
from autometa.search.variant_training import VariantTrainer
from autometa.search.weighing import compare_folds

UNDONE = "worse, so undone"
LATE = "it came from elsewhere when no time was left for it"
"""Notes of receipts."""
ORDER_SHARE = 0.5
"""Of the time that could be spent now: what a training elsewhere may take, at least; it costs nothing here."""
LOOK_S = 0.5
"""Between two looks at whether a copy has come, where there is nothing else to do."""


Offer = tuple[Purchase, float, float]
"""A purchase, its seconds from now on, and its expected gain."""


@dataclass
class Shop:
    """Buys for one portfolio. `first`: the view that comes before all others."""

    draft: PortfolioDraft
    prices: Prices
    settings: Settings
    gains: Gains
    trainer: VariantTrainer
    first: View
    receipts: list[Receipt] = field(default_factory=list, init=False)

    @property
    def orders(self) -> CopyOrders | None:
        """Copies that others train meanwhile."""
        return self.prices.orders

    def why_ended(self) -> str:
        """Why nothing more was bought, for people."""
        notes = [receipt.note for receipt in self.receipts if receipt.note]
        undone = notes.count(UNDONE)
        counts = {"undone": undone, "failed": len(notes) - undone}
        lost = "".join(f", {count} {name}" for name, count in counts.items() if count)
        made = f"{len(self.receipts)} purchases{lost}"
        barred = {
            str(purchase): broken for purchase in self._list() if (broken := self.prices.breaks(purchase))
        }
        if barred:
            (name, broken), *more = barred.items()
            others = f", and {len(more)} more" if more else ""
            made += f"; not bought: {name}, {broken}{others}"
        if len(self._list()) > len(barred):
            return (
                f"{made}; none that is left fits in {self.prices.spare_s():.0f} s or is expected to gain "
                f"{100 * self.gains.least(self._accuracies_alone()):.2g} points"
            )
        return f"{made}; there is nothing more to buy"

    def choose(self) -> Offer | None:
        """The purchase with the largest expected gain per second, now and in meta-test, that there is time and memory
        for; None where none is left. What others have trained comes first; where nothing else is left, the rest of it
        is waited for."""
        self._order()
        best = self._take_arrived(0.0) or self._find_best(self._list())
        while best is None and self.orders is not None and self.orders.open and self.prices.spare_s() > 0:
            best = self._take_arrived(LOOK_S)
        return best

    def _find_best(self, purchases: Sequence[Purchase]) -> Offer | None:
        """Of these, those left out that are being trained elsewhere."""
        accuracies, weights = self._accuracies_alone(), self.draft.weights()
        least, best, best_rate = self.gains.least(accuracies), None, 0.0
        for purchase in purchases:
            if self._is_ordered(purchase) or self.prices.breaks(purchase):
                continue
            gain = self.gains.expect(purchase, weights, accuracies)
            seconds = self.prices.seconds(purchase)
            rate = gain / (seconds + self.prices.serving_s(purchase))
            if gain >= least and rate > best_rate and self.prices.fits(purchase, seconds):
                best, best_rate = (purchase, seconds, gain), rate
        return best

    def _is_ordered(self, purchase: Purchase) -> bool:
        return self.orders is not None and purchase.kind == "trained" and purchase.view in self.orders.open

    def _order(self) -> None:
        """Have the best copies trained elsewhere, as long as there is a place."""
        while self.orders is not None and self.orders.places:
            best = self._find_best([purchase for purchase in self._list() if purchase.kind == "trained"])
            if best is None:
                return
            purchase, _, _ = best
            name = purchase.view.backbone
            seconds = max(self.prices.train_s(purchase), ORDER_SHARE * self.prices.spare_s())
            turned = self.gains.helped("turned")
            order = CopyOrder(purchase.view, find_spec(name), seconds, turned, self.orders.on)
            self.orders.send(order, self.prices.take_in_s(purchase))

    def _take_arrived(self, timeout_s: float) -> Offer | None:
        """A copy that has come, if there is time left for it."""
        if self.orders is None:
            return None
        view = self.orders.arrived(timeout_s)
        if view is None:
            return None
        purchase = Purchase("trained", view)
        seconds = self.prices.take_in_s(purchase)
        expected = self.gains.expect(purchase, self.draft.weights(), self._accuracies_alone())
        if self.prices.has_room(purchase, seconds):
            return purchase, seconds, expected
        self.receipts.append(Receipt(purchase, 0.0, expected, note=LATE))
        self.orders.report(str(self.receipts[-1]))
        return None

    def end_orders(self) -> None:
        """Wait for nothing more."""
        if self.orders is not None:
            self.orders.cancel()

    def buy(self, purchase: Purchase, seconds: float, expected: float) -> Receipt:
        """Make a purchase. One that fails or runs out of time is a receipt, too, and leaves the portfolio as it was;
        so does one that takes the place of what was there, and is worse."""
        elapsed, before, undo = stopwatch(), self.draft.accuracies(), self.draft.remember(purchase.view)
        try:
            self._make(purchase)
            self.draft.ask(purchase.view)
        except FAILURES as failure:
            undo()
            receipt = Receipt(purchase, elapsed(), expected, note=f"{type(failure).__name__}: {failure}")
        else:
            gain, error = self._compare(purchase.view, before)
            receipt = Receipt(purchase, elapsed(), expected, gain, error)
            if gain is not None and error is not None and expected > 0:
                self.gains.learn(purchase.kind, str(purchase), expected, gain, error)
            if gain is not None and gain < 0 and purchase.kind == "turned":
                undo()
                receipt = replace(receipt, note=UNDONE)
        self.receipts.append(receipt)
        return receipt

    def _compare(self, view: View, before: Sequence[Scores]) -> tuple[float | None, float | None]:
        """By how much the portfolio is better than before, and the standard error, on the folds that count for a
        view; None where nothing can be compared."""
        folds = self.draft.bench.folds_for(view)
        part = slice(folds.start, folds.stop)
        return compare_folds(before[part], self.draft.accuracies()[part])

    def _accuracies_alone(self) -> dict[View, float]:
        return {view: float(alone.mean()) for view, alone in self.draft.alone.items()}

    def _list(self) -> list[Purchase]:
        """What could be bought and has neither failed nor been undone before."""
        forecast, orientations = self.prices.forecast, self.draft.bench.orientations
        sizes = sorted({self.first.px, *(px for px in self.settings.resolutions if px > self.first.px)})
        networks = {(name, "") for name in forecast.probed}
        networks |= {(view.backbone, view.variant) for view in orientations}
        views = [
            forecast.shelf.whole(View(name, forecast.shelf(name).input_px(px), variant=variant))
            for name, variant in sorted(networks)
            for px in sizes
            if px <= find_spec(name).native_px
        ]
        variants = [TUNED] * bool(self.settings.tune_steps) + list(self.settings.families)
        found = list_purchases(views, orientations, variants, turned=self.draft.bench.fits_metrics)
        lost = {str(receipt.purchase) for receipt in self.receipts if receipt.note}
        return [purchase for purchase in found if str(purchase) not in lost]

    def _make(self, purchase: Purchase) -> None:
        forecast = self.prices.forecast
        train = forecast.limits.train
        forecast.make_room()
        if purchase.kind == "trained":
            self._train(purchase)
        budget = TimeBudget(train.clock() + self.prices.spare_s([purchase.view]), train.clock)
        self.draft.bench.take_in(purchase.view, purchase.orientations, budget)

    def _train(self, purchase: Purchase) -> None:
        """Put the copy on the shelf that others have trained, or train it."""
        self.trainer.step_memory = None  # of the copy before
        copy = self.orders.take(purchase.view) if self.orders is not None else None
        if copy is not None:
            self.trainer.adopt(purchase.view, copy.tensors())
            self.trainer.step_memory = copy.step_memory
            return
        elapsed, clock = stopwatch(), self.prices.forecast.limits.train.clock
        within_s = self.prices.train_s(purchase)
        turned = self.gains.helped("turned")
        self.trainer.train(purchase.view, TimeBudget(clock() + within_s, clock), turned=turned)
        if purchase.view.variant == TUNED:
            self.prices.trained_s = elapsed()
