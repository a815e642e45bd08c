"""The shop: which purchase comes next, and what it changes in the portfolio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from autometa.backbones import TUNED, View, find_spec
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import FAILURES
from autometa.core.settings import Settings
from autometa.evaluation.accuracy import Scores, paired_gain
from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.learners.trained import TrainedCosts
from autometa.planning.forecast import Forecast
from autometa.search.evidence import Evidence, FoldAnswer, Mixture
from autometa.search.purchases import (
    LEAST_GAIN,
    SOFTNESS,
    Gains,
    Purchase,
    Receipt,
    list_purchases,
)
from autometa.search.variant_training import VariantTrainer
from autometa.search.weighing import compare_folds, shrink_gain, soft_weights, without_fold
from autometa.search.workbench import Workbench

ALONE = "root"
"""The mode in which views are compared with each other."""
QUICK_MODES = ("root", "plain")
"""The modes in which portfolios are compared before and after a purchase, where they have these."""
TRAINING_FOLD = 0
"""The fold whose classes no network is trained on."""
ASK_S = 1.0
"""Seconds to ask the folds about a further view, until they were asked about one."""
ASKED_TO_WEIGH = 2
"""How often choosing weights asks about each fold."""
ALL_INPUTS = 5
"""Inputs of a view that all modes have beyond those of `QUICK_MODES`."""
TRAIN_GUESS_S = 20.0
"""Seconds to train a copy by classification, at most, until one was trained."""
FEATURE_BYTES = 4 * 2600
"""Of an image in a view, about."""
SERVING_BYTES, SERVED_BYTES = 10**9, 300 * 2**20
"""Memory of the process of meta-test: without views, and for each (an engine, weights, metrics, features)."""
VIEW_BYTES = 350 * 2**20
"""Of a view besides: an engine, metrics, and what fitting them takes."""


@dataclass
class Shop:
    """Buys for one portfolio. `first`: the view that comes before all others; `task_s`: seconds that a task takes
    in meta-test for each view, beside the networks."""

    bench: Workbench
    evidence: Evidence
    forecast: Forecast
    settings: Settings
    gains: Gains
    trainer: VariantTrainer
    first: View
    task_s: float = 0.01
    refinement: Refinement = DEFAULT_REFINEMENT
    offer_s: float = 1.0
    """Seconds that building and saving a learner took last."""
    receipts: list[Receipt] = field(default_factory=list, init=False)
    answers: list[FoldAnswer] = field(default_factory=list, init=False)
    """What the portfolio answers on each fold, as it is now, in a few modes."""
    _alone: dict[View, NDArray[np.float64]] = field(default_factory=dict, init=False)
    _asked_s: float = field(default=ASK_S, init=False)
    _trained_s: float | None = field(default=None, init=False)
    _failed: set[str] = field(default_factory=set, init=False)

    @property
    def views(self) -> list[View]:
        """Views of the portfolio, the largest weight first."""
        weights = self.weights()
        return sorted(weights, key=lambda view: -weights[view])

    def weights(self, without: int | None = None) -> dict[View, float]:
        """Weights of the views by what they answer alone, in all folds or in all but one."""
        views = list(self.bench.orientations)
        if not views or not all(view in self._alone for view in views):
            return dict.fromkeys(views, 1 / max(len(views), 1))
        accuracies = np.stack([self._alone[view] for view in views])
        if without is not None:
            accuracies = without_fold(accuracies, without)
        return dict(zip(views, soft_weights(accuracies, SOFTNESS).tolist(), strict=True))

    def mixture(self, without: int | None = None) -> Mixture:
        """The portfolio with equal weights of its modes."""
        return Mixture(self.weights(without), dict.fromkeys(self.bench.modes, 1.0), self.refinement)

    def price(self, view: View) -> tuple[float, float]:
        """Predicted seconds of the first view, and its gain, which nothing compares with."""
        return self._seconds(Purchase("view", view)), 0.0

    def meta_test_s(self) -> float:
        """Predicted seconds of meta-test with the portfolio as it is now."""
        return self.forecast.meta_test_s(self.views, self._costs(len(self.views)))

    def may_refine(self) -> bool:
        """Whether there is time to ask all modes about all folds once more, and for all that comes after."""
        return self._spare_s() > self._all_modes_s() + self._ask_s(len(self.bench.modes))

    @property
    def weighed_modes(self) -> dict[str, float]:
        """The modes that there is time to weigh, equal weights: all of them, or those that purchases are compared
        in."""
        if self._spare_s() > self._all_modes_s():
            return dict(self.mixture().modes)
        return self._quick

    def _all_modes_s(self) -> float:
        """Predicted seconds to weigh all modes."""
        inputs = ALL_INPUTS * len(self.bench.orientations) * len(self.bench.folds)
        moving_s = self.forecast.policy.slowdown * inputs * self.bench.move_s
        return moving_s + self._ask_s(ASKED_TO_WEIGH * len(self.bench.modes))

    def may_weigh(self) -> bool:
        """Whether there is time to choose weights from the folds, and to save."""
        spare_s = self.forecast.spare_s(self.views, self._costs(len(self.views)))
        return spare_s + self.forecast.finish_s - self.forecast.policy.save_s > self._ask_s(
            ASKED_TO_WEIGH * len(self.bench.modes)
        )

    def why_ended(self) -> str:
        """Why nothing more was bought, for people."""
        left_s = self._spare_s()
        failed = f", {len(self._failed)} failed" if self._failed else ""
        made = f"{len(self.receipts) - len(self._failed)} purchases{failed}"
        if self._list():
            return (
                f"{made}; none that is left fits in {left_s:.0f} s or is expected to gain "
                f"{100 * LEAST_GAIN:.2f} points"
            )
        return f"{made}; there is nothing more to buy"

    def choose(self) -> tuple[Purchase, float, float] | None:
        """The purchase with the largest expected gain per second that there is time and memory for, with its seconds
        and its gain; None where none is left."""
        accuracies = {view: float(alone.mean()) for view, alone in self._alone.items()}
        weights = self.weights()
        best, best_rate = None, 0.0
        for purchase in self._list():
            gain = self.gains.expect(purchase, weights, accuracies)
            seconds = self._seconds(purchase)
            if gain >= LEAST_GAIN and gain / seconds > best_rate and self._fits(purchase, seconds):
                best, best_rate = (purchase, seconds, gain), gain / seconds
        return best

    def buy(self, purchase: Purchase, seconds: float, expected: float) -> Receipt:
        """Make a purchase; that it fails or runs out of time is a receipt, too, and a view that comes to nothing is
        not in the portfolio."""
        elapsed, before = stopwatch(), self._accuracies()
        known = purchase.view in self.bench.orientations
        try:
            self._make(purchase)
            self._ask(purchase.view)
        except FAILURES as failure:
            self._failed.add(str(purchase))
            if not known:
                self.bench.orientations.pop(purchase.view, None)
                self._alone.pop(purchase.view, None)
            receipt = Receipt(purchase, elapsed(), expected, note=f"{type(failure).__name__}: {failure}")
        else:
            folds = slice(TRAINING_FOLD, TRAINING_FOLD + 1) if purchase.view.variant else slice(None)
            gain, error = compare_folds(before[folds], self._accuracies()[folds])
            receipt = Receipt(purchase, elapsed(), expected, gain, error)
            if gain is not None and error is not None and purchase.view != self.first:
                self.gains.learn(purchase.kind, str(purchase), expected, gain, error)
        self.receipts.append(receipt)
        return receipt

    def _list(self) -> list[Purchase]:
        """What could be bought and has not failed before."""
        sizes = sorted({self.first.px, *(px for px in self.settings.resolutions if px > self.first.px)})
        networks = {(name, "") for name in self.forecast.probed}
        networks |= {(view.backbone, view.variant) for view in self.bench.orientations}
        views = [
            View(name, self.forecast.shelf(name).input_px(px), variant=variant)
            for name, variant in sorted(networks)
            for px in sizes
            if px <= find_spec(name).native_px
        ]
        trainable = [
            view for view in self.bench.orientations if view.px == self.first.px and not view.variant
        ]
        variants = [TUNED] * bool(self.settings.tune_steps) + list(self.settings.families)
        found = list_purchases(views, self.bench.orientations, variants, trainable)
        return [purchase for purchase in found if str(purchase) not in self._failed]

    def _seconds(self, purchase: Purchase) -> float:
        """Predicted seconds of a purchase, from now to what the evidence says of it."""
        more = 1
        if purchase.kind == "turned":
            more = purchase.orientations - self.bench.orientations[purchase.view]
        slowdown = self.forecast.policy.slowdown
        embed_s = slowdown * more * len(self.bench.pool.images) * self.forecast.image_s(purchase.view)
        train_s = self._train_s(purchase) if purchase.kind == "trained" else 0.0
        return embed_s + slowdown * self._asked_s + train_s

    def _train_s(self, purchase: Purchase) -> float:
        """Seconds that training may take; 0 where they would be too few."""
        policy, spare_s = self.forecast.policy, self._spare_s()
        if purchase.view.variant != TUNED:
            return policy.family_s(spare_s)
        return min(policy.tuning_s(spare_s), self._trained_s or TRAIN_GUESS_S)

    def _ask_s(self, modes: int) -> float:
        """Predicted seconds to ask so many modes of the portfolio about all folds."""
        return self.forecast.policy.slowdown * modes * self.evidence.mode_s * len(self.bench.folds)

    def _end_s(self) -> float:
        """Seconds that weights and the final learner take beyond those that are reserved for the end of any run."""
        reserved_s = self.forecast.finish_s
        return max(self._ask_s(ASKED_TO_WEIGH * len(self._quick)) + self.offer_s - reserved_s, 0.0)

    def _spare_s(self, further: Sequence[View] = ()) -> float:
        """Seconds that can be spent now so that the end of the run and meta-test, with `further` views, still fit."""
        views = [*{*self.views, *further}]
        return self.forecast.spare_s(views, self._costs(len(views))) - self._end_s()

    def _fits(self, purchase: Purchase, seconds: float) -> bool:
        """Whether there is time for a purchase and then for meta-test with it, and memory."""
        if purchase.kind == "trained" and not self._train_s(purchase):
            return False
        images = len(self.bench.pool.images) * purchase.orientations
        needed = VIEW_BYTES + 2 * FEATURE_BYTES * images + self.bench.product_bytes
        memory, views = self.forecast.limits.memory, [*{*self.views, purchase.view}]
        if not memory.fits(needed) or SERVING_BYTES + SERVED_BYTES * len(views) > memory.total_bytes:
            return False
        spare_s = seconds + self.offer_s + self._end_s()
        return self.forecast.fits(views, learners=self._costs(len(views)), spare_s=spare_s)

    def _costs(self, views: int) -> list[TrainedCosts]:
        return [TrainedCosts(task_s=self.task_s * views)]

    def _make(self, purchase: Purchase) -> None:
        train = self.forecast.limits.train
        self.forecast.make_room()
        if purchase.kind == "trained":
            elapsed = stopwatch()
            within_s = self._train_s(purchase)
            turned = self.gains.helped("turned")
            self.trainer.train(
                purchase.view, TimeBudget(train.clock() + within_s, train.clock), turned=turned
            )
            if purchase.view.variant == TUNED:
                self._trained_s = elapsed()
        budget = TimeBudget(train.clock() + self._spare_s([purchase.view]), train.clock)
        self.bench.take_in(purchase.view, purchase.orientations, budget)

    def _ask(self, view: View) -> None:
        """What a view answers alone, and then what the portfolio answers."""
        if not self.bench.folds:
            return
        elapsed, alone = stopwatch(), Mixture({view: 1.0}, {ALONE: 1.0})
        if view.variant:
            plain = self._untrained(view)
            own = self.evidence.accuracies(alone, TRAINING_FOLD)
            others = self.evidence.accuracies(replace(alone, views={plain: 1.0}), TRAINING_FOLD)
            self._alone[view] = self._alone[plain] + shrink_gain(*paired_gain(own, others))
        else:
            folds = range(len(self.bench.folds))
            self._alone[view] = np.array(self.evidence.mean(alone, folds))
        quick = replace(self.mixture(), modes=self._quick)
        self.answers = [self.answer(quick, fold) for fold in range(len(self.bench.folds))]
        self._asked_s = elapsed()

    def _untrained(self, view: View) -> View:
        """The view of the same network without training that is known, of the same size if possible."""
        alike = [one for one in self._alone if one.backbone == view.backbone and not one.variant]
        return max(alike, key=lambda one: one.px == view.px)

    def answer(self, mixture: Mixture, fold: int) -> FoldAnswer:
        """What a portfolio answers on a fold; without trained copies, which have seen its classes, but on one."""
        unseen = [view for view in mixture.views if fold == TRAINING_FOLD or not view.variant]
        return self.evidence.answer(mixture.narrowed(unseen), fold)

    def accuracies_with(self, refinement: Refinement) -> list[float]:
        """Mean accuracy of the portfolio in each fold with another refinement."""
        mixture = replace(self.mixture(), refinement=refinement)
        answers = [self.answer(mixture, fold) for fold in range(len(self.bench.folds))]
        return [float(self.evidence.measure(answer, mixture.modes).mean()) for answer in answers]

    def _accuracies(self) -> list[Scores]:
        """Accuracy of the portfolio in each episode, fold by fold."""
        return [self.evidence.measure(answer, self._quick) for answer in self.answers]

    @property
    def _quick(self) -> dict[str, float]:
        """The modes in which portfolios are compared, with their weights."""
        return {mode: 1.0 for mode in self.bench.modes if mode in (*QUICK_MODES, "unfitted")}
