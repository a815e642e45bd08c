"""A fixed recipe without any search: frozen views, fused, answer in the same modes whatever the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from autometa.backbones import View, find_spec, installed_backbones
from autometa.core.errors import FAILURES, DataError, describe
from autometa.core.time_policy import POLICY
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.heads import FeatureStatistics, Metric, find_metric
from autometa.heads.modes import SIX_MODES, collect_keys
from autometa.learners.trained import TrainedCosts
from autometa.model.artifact import MetricKey
from autometa.model.inputs import list_inputs
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from autometa.model.task_time import time_task
from autometa.systems.frozen import STRONGEST, FrozenSystem

FURTHER = (
    View("tf_efficientnet_lite1", 128),
    View("tf_efficientnet_lite2", 128),
    View("tf_efficientnet_lite0", 224),
)
"""Views beside the first one, in the order in which they are taken."""
MEASURING_S = 10.0
"""Seconds to allow for building a further backbone, a race of its engines, and measuring it."""
SIZES = (128, 224, 160)
"""In which `autometa` sees images by default, beyond that of its first view; in the order in which they are taken."""


@dataclass
class FixedSystem(FrozenSystem):
    """One meta-training: as many views as there is time for, in order, all with the same images; their metrics are
    fitted on all meta-train classes; `modes` answer with equal weights."""

    further: tuple[View, ...] = FURTHER
    modes: tuple[str, ...] = ("transport",)
    _metrics: dict[MetricKey, Metric] = field(default_factory=dict, init=False)

    def _fit(self, pool: ImagePool) -> Portfolio:
        """View after view. The first is saved at once, the others together."""
        first = self._probe(pool)
        plan = self._plan([first])
        self.report(f"plan: {plan.why}")
        alike = [first, *(view for view in self.further if view.px == first.px)]
        rows = self._take(pool, self._count_affordable([first] * len(alike), plan))
        self._fit_metrics(pool, rows, first)
        portfolio = self._save_portfolio([first], "first view")
        view_task_s = self._measure_task_s(pool, portfolio)
        used = [first]
        for asked in self.further:
            costs = TrainedCosts(task_s=view_task_s * (len(used) + 1))
            if not self._has_time_to_measure(asked, used, len(rows)):
                continue
            if not self._measure_if_here(asked.backbone, pool):
                continue
            view = replace(asked, px=self._shelf(asked.backbone).input_px(asked.px))
            if not self._fits([*used, view], costs, len(rows)):
                continue
            try:
                self._fit_metrics(pool, rows, view, used)
            except FAILURES as error:
                self.report(f"{view} is left out: {describe(error)}")
                continue
            used.append(view)
        return self._save_portfolio(used, "final") if len(used) > 1 else portfolio

    def _has_time_to_measure(self, view: View, used: Sequence[View], n_images: int) -> bool:
        """Whether a backbone was measured before, or is predicted to leave the views so far their time for meta-test
        if it is measured, embeds so many images, and then those of meta-test."""
        if view.backbone in self._forecast.probed:
            return True
        try:
            image_s = self._forecast.predict_image_s(find_spec(view.backbone), view.px) or 0.0
        except FAILURES as error:
            self.report(f"left out: {describe(error)}")
            return False
        images = POLICY.slowdown * n_images + self.test.embedded_images
        fits = self._forecast.fits(used, spare_s=MEASURING_S + image_s * images)
        if not fits:
            self.report(f"no time to measure {view}")
        return fits

    def _fits(self, views: Sequence[View], costs: TrainedCosts, n_images: int) -> bool:
        """Whether there is time to embed so many images in the last view, to fit its metrics, and for meta-test
        with all views, where a task takes what `costs` say beside the networks."""
        fits = self._forecast.fits(views, {views[-1]: n_images}, learners=[costs], spare_s=POLICY.metrics_s)
        if not fits:
            self.report(f"no time for {views[-1]}")
        return fits

    def _fit_metrics(self, pool: ImagePool, rows: Rows, view: View, used: Sequence[View] = ()) -> None:
        """Embed the images in a view and fit the metrics of all its inputs, in the time that meta-test leaves with it
        and those that are `used`. DataError where one cannot be fitted."""
        labels = torch.from_numpy(pool.labels[rows])
        within_s = self._forecast.spare_s([*used, view])
        statistics: dict[View, FeatureStatistics] = {}
        for key in collect_keys(self.modes):
            for each, metric in list_inputs([view], key):
                if each not in statistics:
                    statistics[each] = FeatureStatistics(self._embed(pool, rows, each, within_s), labels)
                try:
                    self._metrics[each, metric] = statistics[each].fit(find_metric(metric))
                except ValueError as error:
                    raise DataError(f"the metric {metric} cannot be fitted: {error}") from error

    def _save_portfolio(self, views: Sequence[View], stage: str) -> Portfolio:
        """The portfolio of these views, saved."""
        portfolio = Portfolio(
            tuple(views),
            tuple(WeightedMode(name=name) for name in self.modes),
            self._shelf,
            self._metrics,
            balanced=self.test.episodes.balanced,
            validation={"stage": stage, "views": list(map(str, views))},
        )
        self._keep(portfolio)
        return portfolio

    def _measure_task_s(self, pool: ImagePool, portfolio: Portfolio) -> float:
        """Seconds of a task, its images embedded, measured on one that is drawn from the meta-train images."""
        classes = np.arange(pool.classes)
        (episode,) = sample_episodes(pool, classes, self.test.episodes, 1, self._rng)
        return time_task(pool, portfolio, episode)


SixModesSystem = partial(FixedSystem, modes=SIX_MODES)
"""The same with the six modes instead of plain transport."""


def list_all_views() -> tuple[View, ...]:
    """Every installed backbone in each of `SIZES` up to that of its pretraining: all that `autometa` could buy here
    without training. Views of the fixed recipe come first, in its order."""
    specs = [spec for spec in installed_backbones() if spec.packaged]  # the same wherever it runs
    every = [View(spec.name, px) for px in SIZES for spec in specs if px <= spec.native_px]
    known = [view for view in FURTHER if view in every]
    return tuple(view for view in dict.fromkeys([*known, *every]) if view != STRONGEST)


def make_all_views_system(*given: Any) -> FixedSystem:
    """The six modes on as many of all these views as there is time for; it takes what `FixedSystem` takes first."""
    system = SixModesSystem(*given)
    system.further = list_all_views()
    return system
