"""The shop: which purchase comes next, and what it changes in the portfolio."""

from __future__ import annotations

from dataclasses import dataclass, field

from autometa.backbones import TUNED, View, find_spec
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import FAILURES
from autometa.core.settings import Settings
from autometa.search.draft import PortfolioDraft
from autometa.search.prices import Prices
from autometa.search.purchases import Gains, Purchase, Receipt, list_purchases
from autometa.search.variant_training import VariantTrainer
from autometa.search.weighing import compare_folds
from autometa.search.workbench import TRAINING_FOLD


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
    _failed: set[str] = field(default_factory=set, init=False)

    def why_ended(self) -> str:
        """Why nothing more was bought, for people."""
        failed = f", {len(self._failed)} failed" if self._failed else ""
        made = f"{len(self.receipts) - len(self._failed)} purchases{failed}"
        if self._list():
            return (
                f"{made}; none that is left fits in {self.prices.spare_s():.0f} s or is expected to gain "
                f"{100 * self.gains.least(self._accuracies_alone()):.2f} points"
            )
        return f"{made}; there is nothing more to buy"

    def choose(self) -> tuple[Purchase, float, float] | None:
        """The purchase with the largest expected gain per second, now and in meta-test, that there is time and memory
        for, with its seconds now and its gain; None where none is left."""
        accuracies, weights = self._accuracies_alone(), self.draft.weights()
        least, best, best_rate = self.gains.least(accuracies), None, 0.0
        for purchase in self._list():
            gain = self.gains.expect(purchase, weights, accuracies)
            seconds = self.prices.seconds(purchase)
            rate = gain / (seconds + self.prices.serving_s(purchase))
            if gain >= least and rate > best_rate and self.prices.fits(purchase, seconds):
                best, best_rate = (purchase, seconds, gain), rate
        return best

    def buy(self, purchase: Purchase, seconds: float, expected: float) -> Receipt:
        """Make a purchase; that it fails or runs out of time is a receipt, too, and a view that comes to nothing is
        not in the portfolio."""
        elapsed, before = stopwatch(), self.draft.accuracies()
        known = purchase.view in self.draft.bench.orientations
        try:
            self._make(purchase)
            self.draft.ask(purchase.view)
        except FAILURES as failure:
            self._failed.add(str(purchase))
            if not known:
                self.draft.drop(purchase.view)
            receipt = Receipt(purchase, elapsed(), expected, note=f"{type(failure).__name__}: {failure}")
        else:
            folds = slice(TRAINING_FOLD, TRAINING_FOLD + 1) if purchase.view.variant else slice(None)
            gain, error = compare_folds(before[folds], self.draft.accuracies()[folds])
            receipt = Receipt(purchase, elapsed(), expected, gain, error)
            if gain is not None and error is not None and purchase.view != self.first:
                self.gains.learn(purchase.kind, str(purchase), expected, gain, error)
        self.receipts.append(receipt)
        return receipt

    def _accuracies_alone(self) -> dict[View, float]:
        return {view: float(alone.mean()) for view, alone in self.draft.alone.items()}

    def _list(self) -> list[Purchase]:
        """What could be bought and has not failed before."""
        forecast, orientations = self.prices.forecast, self.draft.bench.orientations
        sizes = sorted({self.first.px, *(px for px in self.settings.resolutions if px > self.first.px)})
        networks = {(name, "") for name in forecast.probed}
        networks |= {(view.backbone, view.variant) for view in orientations}
        views = [
            View(name, forecast.shelf(name).input_px(px), variant=variant)
            for name, variant in sorted(networks)
            for px in sizes
            if px <= find_spec(name).native_px
        ]
        variants = [TUNED] * bool(self.settings.tune_steps) + list(self.settings.families)
        found = list_purchases(views, orientations, variants, turned=self.draft.bench.fits_metrics)
        return [purchase for purchase in found if str(purchase) not in self._failed]

    def _make(self, purchase: Purchase) -> None:
        forecast = self.prices.forecast
        train = forecast.limits.train
        forecast.make_room()
        if purchase.kind == "trained":
            elapsed = stopwatch()
            within_s = self.prices.train_s(purchase)
            turned = self.gains.helped("turned")
            self.trainer.train(
                purchase.view, TimeBudget(train.clock() + within_s, train.clock), turned=turned
            )
            if purchase.view.variant == TUNED:
                self.prices.trained_s = elapsed()
        budget = TimeBudget(train.clock() + self.prices.spare_s([purchase.view]), train.clock)
        self.draft.bench.take_in(purchase.view, purchase.orientations, budget)
