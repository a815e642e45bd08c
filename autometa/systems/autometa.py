"""autometa itself: bootstrap → pool → probe → plan → views → portfolio → evidence → save.

A portfolio of fused views answers from the first view on. Time buys what is expected to gain most per second: further
views, turned classes, trained copies of backbones. Evidence from held-out classes moves weights; it picks no winners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from autometa.backbones import View, find_spec, installed_backbones, work_of
from autometa.backbones.feature_files import FeatureFiles
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shared_features import SharedFeatures
from autometa.backbones.shelf import BackboneShelf
from autometa.backbones.spread_features import SpreadFeatures
from autometa.core import journals
from autometa.core.budget import Limits, stopwatch
from autometa.core.errors import FAILURES, BudgetExhausted, describe
from autometa.core.machine import Machine
from autometa.core.settings import Settings
from autometa.core.sharing import SharedWork
from autometa.core.time_policy import POLICY, TimePolicy
from autometa.data.images import ImagePool
from autometa.data.test_spec import FORMAT_PX, TestSpec
from autometa.evaluation.member import plain_member
from autometa.learners.prepared import PROBE_IMAGES
from autometa.model.fitted_learner import FittedLearner
from autometa.model.task_time import measure_task_s
from autometa.planning.choice_log import ChoiceLog, Member
from autometa.planning.forecast import Forecast
from autometa.planning.plan import Plan, make_plan
from autometa.planning.serving_limits import ServingLimits
from autometa.planning.stage_log import JOURNAL, StageLog
from autometa.search import explanation
from autometa.search.copy_orders import Trainers
from autometa.search.equals import leave_out_equals
from autometa.search.final_weights import FinalWeights, choose_weights
from autometa.search.incumbent import Incumbent, Servable, Stage
from autometa.search.opening import Opening
from autometa.search.probing import Prober
from autometa.search.purchases import Purchase
from autometa.search.refinement import LEAST_TRIALS, search_refinement
from autometa.search.serving_check import SavedCheck, correct_gate, keeps_limits
from autometa.search.serving_gate import ServingGate
from autometa.search.shop import Shop
from autometa.search.standing import standing
from autometa.search.usable_backbones import UsableBackbones


@dataclass
class Controller:
    """One meta-training. `checkpoint` is the folder where valid learners are saved as soon as they are known (None:
    only the caller saves), beside the journal of an earlier run with which this one goes on; `report` gets a line
    for whoever watches; `start_s` is what starting a process with all imports takes; `policy` says how the time is
    divided; `shared`: work in common with other runs; `spread`: who embeds images beside this process,
    `trainers`: who trains copies of networks; `serving`: the limits of its users, where these are not those of the
    settings."""

    settings: Settings
    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    policy: TimePolicy = POLICY
    shared: SharedWork | None = None
    spread: SpreadFeatures | None = None
    trainers: Trainers | None = None
    serving: ServingLimits | None = None

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report, layers=self.settings.layers)
        cache = self.settings.feature_cache
        self._store = FeatureStore(
            self._shelf,
            self.limits.memory,
            FeatureFiles(cache, self.settings.feature_cache_size, self.report) if cache else None,
            ahead=int(self.test.embedded_images),
            shared=SharedFeatures.of(self.shared),
            spread=self.spread,
        )
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s, self.policy)
        self._rng = np.random.default_rng(self.settings.seed)
        asked = self.serving or ServingLimits.of(self.settings)
        self._gate = ServingGate(asked, self._forecast, self.test.px)
        names = list(self.settings.backbones or [spec.name for spec in installed_backbones()])
        if self._gate.limits:  # the first one must keep them
            names.sort(key=lambda name: work_of(find_spec(name), FORMAT_PX) or float("inf"))
        ranked = not self.settings.backbones  # else in the order in which they are named
        backbones = UsableBackbones(names, self._shelf, self.report, ranked=ranked)
        self._prober = Prober(backbones, self._forecast, self.settings, self._gate, self.report)
        self.stages = StageLog(self.checkpoint, report=self.report)
        self.choices = ChoiceLog(self.checkpoint, self.report)
        self._incumbent = Incumbent(self.checkpoint, self.report, self._forecast.saving)

    def check(self) -> None:
        """WeightsError where no backbone can be used, UnmetLimit where none keeps the limits of its users. Nothing is
        written."""
        self._gate.forecast.shelf(self._plain_view.backbone)

    def bootstrap(self) -> Servable:
        """A valid learner, saved: what an earlier run has saved, else the cheapest backbone with weights at hand and
        nearest centroid. UnmetLimit where that would break a limit of its users."""
        if self._gate.limits:  # before anything is written
            self.report(f"the cheapest candidate keeps the limits: {self._plain_view}")
        with self.stages.timed("bootstrap"):
            if self.checkpoint is not None:
                journals.tidy_folder(self.checkpoint, JOURNAL, self.report)
            earlier = self._incumbent.resume(partial(keeps_limits, limits=self._gate.limits))
            if earlier is None:
                return self._offer_plain(self._plain_view)
            earlier.limit_memory(self.limits.memory)
            self.choices.resume(*explanation.RESUMED)
            return earlier

    def run(self, pool: ImagePool) -> Servable:
        """Everything after the images are known; a valid learner, whatever happens."""
        latest = self._incumbent.latest or self.bootstrap()
        for step in (partial(self._search, pool), partial(self.stages.write_line, "meta_test")):
            try:
                step()
            except FAILURES as error:
                self.report(f"stopped early: {describe(error)}")
        return self._incumbent.latest or latest

    def _search(self, pool: ImagePool) -> None:
        """Measure, plan, and improve on the bootstrap where there is time for it."""
        with self.stages.timed("probe"):
            first = self._probe(pool, self._plain_view)
        plan = make_plan(self.limits.run.left_s(), [first], self.test, self._forecast.costs([first]))
        self.report(f"plan: {plan.why}")
        if plan.search_s > 0:
            self._improve(pool, self._shelf.whole(first), plan)

    def _improve(self, pool: ImagePool, first: View, plan: Plan) -> None:
        """The default portfolio of the first view, then purchases while they are worth their seconds, then weights
        from the evidence."""
        without = self._gate.leave_metrics_out(first)
        if (broken := self._gate.broken_with([first])) is not None:
            self.report(f"no portfolio is made, as one of {first} alone is {broken}")
            return
        if without is not None:
            self.report(without)
        opening = Opening(
            self.settings, self.test, self._forecast, self._gate, self._rng, self.report, self.trainers
        )
        shop = opening.open_shop(pool, first, plan, self.checkpoint, self.shared)
        purchase = Purchase("view", first)
        self._buy(shop, purchase, shop.prices.seconds(purchase), 0.0)
        if not shop.draft.views:
            return  # nothing to serve with but the bootstrap
        self._offer(shop, "default")
        try:
            while (offer := shop.choose()) is not None:
                self._buy(shop, *offer)
                if self._incumbent.is_due(self.policy.save_every_s):
                    self._offer(shop, "search")
        finally:
            shop.end_orders()
        self._conclude(shop)

    @cached_property
    def _plain_view(self) -> View:
        """What the first backbone that can be used is used at before anything is measured. WeightsError where there
        is none, UnmetLimit where it is too slow or too large."""
        return self._prober.plain_view()

    def _probe(self, pool: ImagePool, wanted: View) -> View:
        """Measure the backbones; returns the bootstrap's view, or a coarser one if meta-test needs it."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        view = self._prober.measure(pool.images[rows], wanted, len(pool.images))
        if view != wanted or self._shelf(view.backbone).expected(view.px):
            self._offer_plain(view)  # with the engine that was chosen
        return view

    def _buy(self, shop: Shop, purchase: Purchase, seconds: float, expected: float) -> None:
        """Make a purchase, which is a stage of its own; its receipt goes to the journal and to whoever watches."""
        with self.stages.timed(str(purchase), seconds):
            receipt = shop.buy(purchase, seconds, expected)
            self._forecast.on_disk.discard(purchase.view.plain)  # its metrics are others now
            if purchase.view in shop.draft.bench.orientations:
                self._measure_single(purchase)
            self.stages.note(str(purchase), receipt.outcome())
            if purchase.kind == "trained" and shop.trainer.step_memory:
                self.stages.note(str(purchase), str(shop.trainer.step_memory))
        self.choices.add_trial(explanation.describe_trial(receipt, seconds))
        self.stages.append(receipt.record(), durable=True)
        self.report(f"bought {receipt}" if receipt.gain is not None else str(receipt))
        self.report(standing(shop, "search").line())

    def _measure_single(self, purchase: Purchase) -> None:
        """What one image takes in a view that was bought, where a limit asks for it."""
        try:
            self._gate.measure(purchase.view)
        except FAILURES as error:
            self._note(str(purchase), f"one image was not measured: {describe(error)}")

    def _conclude(self, shop: Shop) -> None:
        """Weights, refinement and temperature from the evidence, an honest figure, and the final learner."""
        self._note("evidence", shop.why_ended())
        if (fewer := self._gate.why_fewer(shop.draft.views)) is not None:
            self._note("evidence", fewer)
        weights = None
        if shop.draft.answers:
            with self.stages.timed("evidence", self.policy.ensemble_s):
                try:
                    weights = self._weigh(shop)
                except FAILURES as error:
                    self._note("evidence", f"equal weights: {describe(error)}")
        with self.stages.timed("save", self._forecast.save_s(shop.draft.views)):
            self._offer(shop, "final", weights)
        if self._gate.limits:
            with self.stages.timed("limits", self._gate.check_s(shop.draft.views)):
                check = SavedCheck(self._gate, self.checkpoint, partial(self._note, "limits"))
                self.choices.keep(check.replace(self._incumbent, shop.draft.bench.pool))
        self.report(standing(shop, "final", weights.estimate if weights else None).line())

    def _weigh(self, shop: Shop) -> FinalWeights:
        """Refinement and weights from the folds. BudgetExhausted where there is no time for them."""
        draft, prices = shop.draft, shop.prices
        if prices.may_refine(LEAST_TRIALS):
            refined = search_refinement(
                draft.accuracies_with,
                self.settings.seed,
                lambda: prices.may_refine(1),
                self.settings.max_trials,
            )
            self._note("evidence", str(refined))
            draft.refinement = refined.refinement
        leave_out_equals(draft, lambda: prices.may_refine(1), partial(self._note, "evidence"))
        modes = prices.weighed_modes()
        if modes is None:
            raise BudgetExhausted("no time is left to choose weights")
        modes = {name: modes[name] for name in self._gate.modes(draft.views) if name in modes} or modes
        weights = choose_weights(draft, modes, self.test, self._rng)
        self._note("evidence", weights.describe())
        return weights

    def _offer(self, shop: Shop, stage: Stage, weights: FinalWeights | None = None) -> None:
        """Offer the portfolio as it is now."""
        elapsed, draft, prices = stopwatch(), shop.draft, shop.prices
        weights = weights or FinalWeights.equal(draft)
        if self._gate.limits:
            weights = weights.narrowed(self._gate.modes(draft.views))
        portfolio = weights.build(draft.bench, self._shelf, balanced=self.test.episodes.balanced)
        portfolio.costs = self._forecast.serving_costs(portfolio.views)
        pool, spec = draft.bench.pool, self.test.episodes
        task_s = measure_task_s(pool, portfolio, spec, self._rng, self._forecast.store)
        if task_s is not None:
            prices.task_s = task_s / len(portfolio.views)
            portfolio.costs = portfolio.costs.with_task(task_s)
        self.stages.predict("meta_test", prices.meta_test_s())
        if self._incumbent.offer(portfolio, weights.estimate, stage):
            if self.checkpoint is not None:
                self._forecast.on_disk = {view.plain for view in portfolio.views}
            told = explanation.describe_served(stage, weights.estimate or explanation.told_accuracy(draft))
            self.choices.add_served(
                told, explanation.list_members(draft, weights), prices.serving_bytes(draft.views)
            )
            self.choices.explain(*explanation.explain(shop, weights))
        if stage == "default" and self._gate.limits.times:  # now that it is on disk
            correct_gate(self._gate, portfolio, pool)
        prices.offer_s = elapsed()
        self.stages.write()

    def _offer_plain(self, view: View) -> Servable:
        """Offer nearest centroid on a view, unless an earlier run has left something better."""
        balanced = self.test.episodes.balanced
        learner = FittedLearner((plain_member(view),), self._shelf, {}, balanced=balanced)
        if self._incumbent.offer(learner, None, "bootstrap"):
            member = Member(name=str(view), kind="view", weight=1.0)
            self.choices.add_served(explanation.describe_served("bootstrap", None), [member])
            self.choices.explain(*explanation.explain_bootstrap(view))
        return self._incumbent.latest or learner

    def _note(self, stage: str, line: str) -> None:
        """Report a line that is worth reading after the run, too."""
        self.stages.note(stage, line)
        self.report(line)
