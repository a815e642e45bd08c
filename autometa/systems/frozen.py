"""What systems of frozen backbones share: measuring a network, choosing and embedding images, saving in time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, TimeBudget
from autometa.core.errors import FAILURES, BudgetExhausted, describe
from autometa.core.machine import Machine
from autometa.core.time_policy import POLICY
from autometa.data.images import ImagePool, Rows, take_share_of_each_class
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import Member, plain_member
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import Metric
from autometa.learners.prepared import PROBE_IMAGES
from autometa.model.artifact import MetricKey
from autometa.model.fitted_learner import FittedLearner
from autometa.model.learner_folder import LearnerFolder
from autometa.model.portfolio import Portfolio
from autometa.planning.forecast import Forecast
from autometa.planning.plan import Plan, make_plan

STRONGEST = View("tf_efficientnet_lite0", 128)
"""Of the backbones that every installation has."""


@dataclass
class FrozenSystem(ABC):
    """One meta-training without gradient steps; a system derives from this and says how in `_fit`. A valid learner,
    the nearest class mean on `view`, is on disk in `checkpoint` before any image is read (None: only the caller
    saves). `start_s`: seconds that starting a process with all imports takes."""

    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    view: View = STRONGEST
    seed: int = 0
    _latest: FittedLearner | Portfolio | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report)
        ahead = int(self.test.embedded_images)
        self._store = FeatureStore(self._shelf, self.limits.memory, ahead=ahead)
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s)
        self._folder = LearnerFolder(self.checkpoint, self.report, self._forecast.saving)
        self._rng = np.random.default_rng(self.seed)

    def bootstrap(self) -> FittedLearner | Portfolio:
        """The backbone and the nearest class mean, saved, or what an earlier run has fitted."""
        earlier = self._folder.resume(FittedLearner, Portfolio)
        return earlier or self._save([plain_member(self.view)], {}, {"stage": "bootstrap"})

    def run(self, pool: ImagePool) -> FittedLearner | Portfolio:
        """Fit what the system fits; a valid learner, whatever happens."""
        latest = self._latest or self.bootstrap()
        try:
            return self._folder.best(self._fit(pool))
        except FAILURES as error:
            self.report(f"stopped early: {describe(error)}")
        return self._folder.best(self._latest or latest)

    @abstractmethod
    def _fit(self, pool: ImagePool) -> FittedLearner | Portfolio:
        """The learner of this system, saved. One of `FAILURES` where the one that was saved before has to do."""

    def _probe(self, pool: ImagePool) -> View:
        """Choose an engine and measure it; the view, or a coarser one if meta-test needs it."""
        self._measure_speed(self.view.backbone, pool)
        view = self._forecast.coarsened(self.view)
        if view != self.view:
            self.report(f"{self.view} is too slow for meta-test here, {view} instead")
        self._save([plain_member(view)], {}, {"stage": "bootstrap"})  # with the engine that was chosen
        return view

    def _measure_speed(self, backbone: str, pool: ImagePool) -> None:
        """Measure a backbone on a few images. WeightsError where it has no weights here."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        rate = self._forecast.probe(backbone, pool.images[rows])
        self.report(f"probe: {backbone} {rate:.0f} images/s at 128 px")

    def _measure_if_here(self, backbone: str, pool: ImagePool) -> bool:
        """Measure a backbone, unless it was measured before; False, after a report, where it has no weights here or
        cannot be used."""
        if backbone not in self._forecast.probed:
            try:
                self._measure_speed(backbone, pool)
            except FAILURES as error:
                self.report(f"left out: {describe(error)}")
                return False
        return True

    def _plan(self, reserved: Sequence[View]) -> Plan:
        """The time left, with meta-test reserved for a head on each of these views."""
        return make_plan(self.limits.run.left_s(), reserved, self.test, self._forecast.costs(reserved))

    def _count_affordable(self, views: Sequence[View], plan: Plan) -> int:
        """How many images there is time to embed, each of them in all these views; 0 without time."""
        left_s = min(plan.search_s, self.limits.train.left_s() - self._forecast.finish_s(views))
        image_s = sum(map(self._forecast.image_s, views))
        return max(int(POLICY.embed_share * left_s / (POLICY.slowdown * image_s)), 0)

    def _take(self, pool: ImagePool, most: int) -> Rows:
        """Rows of about `most` images or of all, the same share of every class. BudgetExhausted without any."""
        if most == 0:
            raise BudgetExhausted("no time is left to embed images in")
        if most < len(pool.images):
            self.report(f"{most} of {len(pool.images)} images fit")
        return take_share_of_each_class(pool.labels, most / len(pool.images), self._rng)

    def _embed(self, pool: ImagePool, rows: Rows, view: View, within_s: float) -> torch.Tensor:
        """Features float32 [n, d] of the images of these rows. BudgetExhausted where that takes longer."""
        images = pool.images if len(rows) == len(pool.images) else pool.images[rows]
        budget = TimeBudget.of(within_s, self.limits.train.clock)
        return self._store.embed(view, images, rows.tolist(), budget)

    def _hold_out(self, pool: ImagePool, rows: Rows, n_episodes: int) -> ValidationSet:
        """Classes held out and episodes over them; its keys are places in `rows`. DataError if no episode can be
        drawn."""
        # episodes need no pixels any more
        part = replace(pool, images=pool.images[:, :, :1, :1][rows], labels=pool.labels[rows])
        return ValidationSet.of(part, self.test, n_episodes, len(rows), self._rng)

    def _save(
        self, members: Sequence[Member], metrics: dict[MetricKey, Metric], record: dict[str, Any]
    ) -> FittedLearner:
        """Make the learner with these members the latest one and save it."""
        balanced = self.test.episodes.balanced
        learner = FittedLearner(tuple(members), self._shelf, metrics, balanced=balanced, validation=record)
        self._keep(learner)
        return learner

    def _keep(self, learner: FittedLearner | Portfolio) -> None:
        """Make it the latest learner and save it."""
        self._latest = learner
        self._folder.save(learner)
