"""A fixed recipe without any search: four frozen views, fused, answer in the same modes whatever the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from autometa.backbones import View, installed_backbones
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, Machine, TimeBudget, process_age_s, stopwatch
from autometa.core.errors import BudgetExhausted, DataError
from autometa.core.time_policy import POLICY
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, Rows, take_share_of_each_class
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import plain_member
from autometa.heads import FeatureStatistics, Metric, find_metric
from autometa.heads.modes import SIX_MODES, find_mode
from autometa.learners.trained import TrainedCosts
from autometa.model.fitted_learner import FittedLearner
from autometa.model.portfolio import InputKey, Portfolio, WeightedMode, list_inputs
from autometa.planning.forecast import PROBE_IMAGES, Forecast
from autometa.planning.plan import make_plan

VIEWS = (
    View("tf_efficientnet_lite0", 128),
    View("tf_efficientnet_lite1", 128),
    View("tf_efficientnet_lite2", 128),
    View("tf_efficientnet_lite0", 224),
)
METRICS_S = 4.0
"""What fitting the metrics of a view may take."""


@dataclass
class FixedSystem:
    """One meta-training: as many of `views`, in order, as there is time for, all with the same images; their
    metrics are fitted on all meta-train classes; `modes` answer with equal weights. A valid learner is on disk in
    `checkpoint` before any image is read (None: only the caller saves)."""

    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    views: tuple[View, ...] = VIEWS
    modes: tuple[str, ...] = ("transport",)
    seed: int = 0
    _latest: FittedLearner | Portfolio | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report)
        self._store = FeatureStore(self._shelf, self.limits.memory, ahead=int(self.test.embedded_images))
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s)
        self._rng = np.random.default_rng(self.seed)
        self._metrics: dict[InputKey, Metric] = {}

    def bootstrap(self) -> FittedLearner | Portfolio:
        """The first view and the nearest class mean, saved."""
        balanced = self.test.episodes.balanced
        return self._save(
            FittedLearner(
                (plain_member(self.views[0]),),
                self._shelf,
                balanced=balanced,
                validation={"stage": "bootstrap"},
            )
        )

    def run(self, pool: ImagePool) -> FittedLearner | Portfolio:
        """Embed and fit; a valid learner, whatever happens to the time."""
        latest = self._latest or self.bootstrap()
        try:
            self._fit(pool)
        except (BudgetExhausted, DataError) as error:
            self.report(f"stopped early: {error}")
        return self._latest or latest

    def _fit(self, pool: ImagePool) -> None:
        """View after view, each saved as a part of the portfolio at once where it is the first, else at the end."""
        probe = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        installed = {spec.name for spec in installed_backbones()} | {self.views[0].backbone}
        rows: Rows | None = None
        used: list[View] = []
        for view in self.views:
            if view.backbone not in installed:
                self.report(f"left out: {view}, whose weights are not installed")
                continue
            if view.backbone not in self._forecast.probed:
                self._forecast.probe(view.backbone, pool.images[probe], len(pool.images))
            if rows is None:
                rows = self._affordable_rows(pool, view)
            elif not self._fits([*used, view], view, len(rows)):
                self.report(f"no time for {view}")
                continue
            self._fit_metrics(pool, rows, view)
            used.append(view)
            if len(used) == 1:
                self._measure(pool, self._save(self._portfolio(used, "first view")))
        if len(used) > 1:
            self._save(self._portfolio(used, "final"))

    def _affordable_rows(self, pool: ImagePool, view: View) -> Rows:
        """Rows of the images that there is time to embed in all views of the first one's size, the same share of
        every class."""
        plan = make_plan(self.limits.run.left_s(), [view], self.test, self._forecast.costs([view]))
        self.report(f"plan: {plan.why}")
        alike = sum(other.px == view.px for other in self.views)
        left_s = min(plan.search_s, self.limits.train.left_s() - POLICY.finish_s) - METRICS_S
        if left_s <= 0:
            raise BudgetExhausted("no time is left to embed images in")
        image_s = POLICY.slowdown * alike * self._forecast.image_s(view)
        most = int(POLICY.embed_share * left_s / image_s)
        if most < len(pool.images):
            self.report(f"{most} of {len(pool.images)} images fit")
        return take_share_of_each_class(pool.labels, most / len(pool.images), self._rng)

    def _fits(self, views: Sequence[View], new: View, n_images: int) -> bool:
        """Whether there is time to embed so many images in a new view, to fit its metrics, and for meta-test with
        it."""
        costs = TrainedCosts(task_s=self._view_task_s * len(views))
        return self._forecast.fits(views, {new: n_images}, learners=[costs], spare_s=METRICS_S)

    def _fit_metrics(self, pool: ImagePool, rows: Rows, view: View) -> None:
        """Embed the images in a view and fit the metrics of all its inputs."""
        train = self.limits.train
        budget = TimeBudget(train.deadline - POLICY.finish_s, train.clock)
        images, labels = pool.images[rows], torch.from_numpy(pool.labels[rows])
        statistics: dict[View, FeatureStatistics] = {}
        for key in {key for name in self.modes for key in find_mode(name).keys}:
            for each, metric in list_inputs([view], key):
                if each not in statistics:
                    features = self._store.embed(each, images, rows.tolist(), budget)
                    statistics[each] = FeatureStatistics(features, labels)
                try:
                    self._metrics[each, metric] = statistics[each].fit(find_metric(metric))
                except ValueError as error:
                    raise DataError(f"the metric {metric} cannot be fitted: {error}") from error

    def _portfolio(self, views: Sequence[View], stage: str) -> Portfolio:
        return Portfolio(
            tuple(views),
            tuple(WeightedMode(name=name) for name in self.modes),
            self._shelf,
            self._metrics,
            balanced=self.test.episodes.balanced,
            validation={"stage": stage, "views": list(map(str, views))},
        )

    def _measure(self, pool: ImagePool, learner: FittedLearner | Portfolio) -> None:
        """Seconds of a task for each view, on one drawn from the meta-train images."""
        spec = self.test.episodes
        (episode,) = sample_episodes(pool, np.arange(pool.classes), spec, 1, self._rng)
        support, query = pool.images[episode.support_rows], pool.images[episode.query_rows]
        answer = partial(learner.fit, support, episode.support_labels, episode.ways)
        answer().predict(query)
        elapsed = stopwatch()
        answer().predict(query)
        self._view_task_s = elapsed()
        self.report(f"a task takes {1000 * self._view_task_s:.0f} ms a view")

    def _save(self, learner: FittedLearner | Portfolio) -> FittedLearner | Portfolio:
        """Make it the latest learner and save it."""
        self._latest = learner
        if self.checkpoint is not None:
            learner.save(self.checkpoint)
            stage = learner.validation["stage"]
            self.report(f"learner on disk ({stage}, {process_age_s():.1f} s after the start)")
        return learner


SixModesSystem = partial(FixedSystem, modes=SIX_MODES)
"""The same with the six modes instead of plain transport."""
