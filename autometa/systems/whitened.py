"""A frozen backbone, one metric learned in closed form, the nearest class mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, Machine, TimeBudget, process_age_s
from autometa.core.errors import BudgetExhausted, DataError
from autometa.core.speed import SLOWDOWN
from autometa.data.images import ImagePool, Rows, take_share_of_each_class
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import Member, plain_member
from autometa.evaluation.mixing import fit_temperature
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import METRICS, FeatureStatistics, Metric, find_metric
from autometa.model.fitted_learner import FittedLearner, MetricKey
from autometa.planning.forecast import PROBE_IMAGES, Forecast
from autometa.planning.plan import FINISH_S, make_plan
from autometa.search.candidates import Candidate, Outcome, guarded

STRONGEST = View("tf_efficientnet_lite0", 128)
"""Of the backbones that every installation has."""
EPISODES = 120
"""Validation episodes that choose the metric, and as many for the final figure."""
EMBED_SHARE = 0.7
"""Share of the time for meta-training that embedding may take; where it does not do, fewer images are used."""
TRIAL_S = 2.0
"""What measuring a metric may take."""


@dataclass
class WhitenedSystem:
    """One meta-training: all images embedded once, every metric of `METRICS` measured on classes held out, under
    the nearest class mean by cosine, and the best one fitted again on all classes. A valid learner is on disk in
    `checkpoint` before any image is read (None: only the caller saves)."""

    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    view: View = STRONGEST
    seed: int = 0
    _latest: FittedLearner | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report)
        ahead = int(self.test.embedded_images)
        self._store = FeatureStore(self._shelf, self.limits.memory, ahead=ahead)
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s)
        self._rng = np.random.default_rng(self.seed)

    def bootstrap(self) -> FittedLearner:
        """The backbone and the nearest class mean, saved."""
        return self._save(plain_member(self.view), {}, {"stage": "bootstrap"})

    def run(self, pool: ImagePool) -> FittedLearner:
        """Choose and fit the metric; a valid learner, whatever happens to the time."""
        latest = self._latest or self.bootstrap()
        try:
            return self._fit(pool)
        except (BudgetExhausted, DataError) as error:
            self.report(f"stopped early: {error}")
        return self._latest or latest

    def _fit(self, pool: ImagePool) -> FittedLearner:
        view = self._probe(pool)
        rows = self._affordable(pool, view)
        features = self._embed(pool, rows, view)
        # episodes need no pixels any more
        part = replace(pool, images=pool.images[:, :, :1, :1][rows], labels=pool.labels[rows])
        validation_set = ValidationSet.of(part, self.test, EPISODES, len(rows), self._rng)
        best = self._choose(view, features[validation_set.keys], validation_set)
        name = str(best.candidate.params["transform"])
        metrics: dict[MetricKey, Metric] = {}
        if find_metric(name).learned:
            metrics[view, name] = FeatureStatistics(features, torch.from_numpy(part.labels)).fit(
                find_metric(name)
            )
        assert best.answer is not None
        temperature = fit_temperature(best.answer, validation_set.episodes)
        fresh = validation_set.answer(
            view, features[validation_set.keys], "centroid", best.candidate.params, validation_set.fresh
        )
        self.report(
            f"chosen: {name}, {fresh.percent()} on fresh validation episodes before it was fitted on all classes"
        )
        member = plain_member(view).model_copy(
            update={"params": best.candidate.params, "temperature": temperature}
        )
        return self._save(member, metrics, {"stage": "final", "metric": name, **fresh.figures()})

    def _probe(self, pool: ImagePool) -> View:
        """Choose an engine and measure it; the view, or a coarser one if meta-test needs it."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        rate = self._forecast.probe(self.view.backbone, pool.images[rows])
        self.report(f"probe: {self.view.backbone} {rate:.0f} images/s at 128 px")
        view = self._forecast.coarsened(self.view)
        if view != self.view:
            self.report(f"{self.view} is too slow for meta-test here, {view} instead")
        self._save(plain_member(view), {}, {"stage": "bootstrap"})  # with the engine that was chosen
        return view

    def _affordable(self, pool: ImagePool, view: View) -> Rows:
        """Rows of the images that there is time to embed, the same share of every class."""
        plan = make_plan(self.limits.run.left_s(), [view], self.test, self._forecast.costs([view]))
        self.report(f"plan: {plan.why}")
        left_s = min(plan.search_s, self.limits.train.left_s() - FINISH_S)
        if left_s <= 0:
            raise BudgetExhausted("no time is left to embed images in")
        most = int(EMBED_SHARE * left_s / (SLOWDOWN * self._forecast.image_s(view)))
        if most < len(pool.images):
            self.report(f"{most} of {len(pool.images)} images fit")
        return take_share_of_each_class(pool.labels, most / len(pool.images), self._rng)

    def _embed(self, pool: ImagePool, rows: Rows, view: View) -> torch.Tensor:
        images = pool.images if len(rows) == len(pool.images) else pool.images[rows]
        train = self.limits.train
        budget = TimeBudget(train.deadline - FINISH_S, train.clock)
        return self._store.embed(view, images, rows.tolist(), budget)

    def _choose(self, view: View, features: torch.Tensor, validation_set: ValidationSet) -> Outcome:
        """The best of the metrics, as many as there is time to measure. BudgetExhausted where there is none."""

        def measure(candidate: Candidate) -> Answer:
            return validation_set.answer(view, features, candidate.head, candidate.params)

        done: list[Outcome] = []
        for name in METRICS:
            if not self._forecast.fits([view], spare_s=TRIAL_S):
                self.report(f"no time for the metrics from {name} on")
                break
            params = {**plain_member(view).params, "transform": name}
            outcome = guarded(measure, Candidate(view, "centroid", params))
            told = outcome.answer.percent() if outcome.answer else outcome.note
            self.report(f"metric {name}: {told}")
            done.append(outcome)
        if not any(outcome.answer for outcome in done):
            raise BudgetExhausted("no metric could be measured")
        return max(done, key=lambda outcome: outcome.score)

    def _save(
        self, member: Member, metrics: dict[MetricKey, Metric], record: dict[str, Any]
    ) -> FittedLearner:
        """Make the learner with this member the latest one and save it."""
        balanced = self.test.episodes.balanced
        self._latest = FittedLearner((member,), self._shelf, metrics, balanced=balanced, validation=record)
        if self.checkpoint is not None:
            self._latest.save(self.checkpoint)
            self.report(f"learner on disk ({record['stage']}, {process_age_s():.1f} s after the start)")
        return self._latest
