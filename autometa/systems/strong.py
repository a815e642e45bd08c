"""A fixed recipe without a search: frozen views, a metric chosen for each, and the best three answer together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from autometa.backbones import STAGES, View
from autometa.core.errors import FAILURES, BudgetExhausted, DataError, describe
from autometa.core.speed import Speed
from autometa.core.time_policy import POLICY
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.candidates import measure_safely
from autometa.evaluation.member import Member, plain_member
from autometa.evaluation.mixing import apply_temperature, average_batches, fit_temperature
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import FeatureStatistics, Metric, Params, find_metric
from autometa.model.fitted_learner import FittedLearner
from autometa.systems.frozen import FrozenSystem

FURTHER = (
    View("tf_efficientnet_lite1", 128),
    View("tf_efficientnet_lite2", 128),
    View("tf_efficientnet_lite0", 224),
)
"""Views beside the first one, in the order in which they are taken where there is no time for all."""
CHOICES, PLAIN = ("root_white", "white", "root_white_weak", "root_l2"), "root_l2"
"""Metrics to choose among, the usual best first, and the one that needs no classes to fit on."""
HEAD, HEAD_PARAMS = "ot_map", {"sharpness": 15.0, "step": 0.4}
MEMBERS = 3
"""Views that answer together."""
EPISODES = 120
"""Validation episodes that choose metrics and views, and as many for the final figure."""
LEAST_CLASSES = 4
"""With fewer, none can be held out while metrics are fitted on others."""
LEAST_IMAGES = 400
"""A further view is taken where every view can then see as many: metrics need them, but views are worth more."""
VIEW_BYTES, FEATURE_COPIES = 600 * 2**20, 6
"""Memory that a further network with its engines may take, and how many copies of the features fitting takes."""


@dataclass(frozen=True)
class TrainingImages:
    """What all views see: rows int64 [n] of the pool, and the validation set, whose keys are places in `rows` (None:
    no episode can be drawn)."""

    pool: ImagePool
    rows: Rows
    validation_set: ValidationSet | None


@dataclass(frozen=True)
class ChosenView:
    """A member of the ensemble as chosen on validation episodes, its metric fitted on all classes, its mean
    normalised `accuracy` there, and its log-probabilities [b, q, n] per batch of fresh episodes."""

    member: Member
    metric: Metric
    accuracy: float = 0.0
    log_p: Sequence[torch.Tensor] = ()

    @property
    def name(self) -> str:
        """Name of the metric."""
        return str(self.member.params["transform"])


@dataclass
class StrongSystem(FrozenSystem):
    """One meta-training: a few frozen views, each with three of its layers; for each the best of a few metrics on
    classes held out, under optimal transport; the best three views answer together, with equal weights. A view is
    embedded only where that, and meta-test with it beside the best two before it, fit in the time left."""

    further: tuple[View, ...] = FURTHER
    _measured: Speed = field(default_factory=Speed, init=False)

    def _fit(self, pool: ImagePool) -> FittedLearner:
        views = self._plan_views(pool, self._measured_views(pool, self._probe(pool)))
        plan = self._plan(self._dearest(views))
        self.report(f"plan: {plan.why}")
        rows = self._take(pool, self._count_affordable(views, plan))
        images = TrainingImages(pool, rows, self._validation_set(pool, rows))
        found: list[ChosenView] = []
        for place, view in enumerate(views):
            try:
                found.append(self._examine(images, view, found, views[place + 1 :]))
            except FAILURES as error:
                self.report(f"{view} is left out: {describe(error)}")
                continue
            if len(found) == 1:
                self._save_best(found, images.validation_set, "first view")
        if not found:
            raise BudgetExhausted("there was no time for any view")
        return self._save_best(found, images.validation_set, "final")

    def _measured_views(self, pool: ImagePool, first: View) -> list[View]:
        """The first view and those further ones whose network is here and was measured in time, with their layers."""
        views, probing = [first], self.limits.train.share(POLICY.probe_share)
        for view in self.further:
            if view.backbone not in self._forecast.probed:
                has_time = probing.left_s() > 0 and self._forecast.fits([first])
                if not (has_time and self.limits.memory.fits(VIEW_BYTES)):
                    self.report(f"no time or memory for {view}")
                    continue
            if self._measure_if_here(view.backbone, pool):
                views.append(view)
        return [self._layered(view) for view in views]

    def _layered(self, view: View) -> View:
        """The view with several layers, which come with the same pass, where its network has them."""
        has = self._shelf(view.backbone).widths
        return replace(view, layers=STAGES) if has.keys() >= set(STAGES) else view

    def _dearest(self, views: Sequence[View]) -> list[View]:
        """The dearest views of which as many may answer together as `MEMBERS`."""
        return sorted(views, key=self._forecast.image_s)[-MEMBERS:]

    def _plan_views(self, pool: ImagePool, views: list[View]) -> list[View]:
        """As many of the views, in order, as leave time for enough images in each; at least the first."""
        wanted = min(LEAST_IMAGES, len(pool.images))
        for n in range(len(views), 1, -1):
            if self._count_affordable(views[:n], self._plan(self._dearest(views[:n]))) >= wanted:
                return views[:n]
            self.report(f"no time for {wanted} images with {views[n - 1]} too")
        return views[:1]

    def _validation_set(self, pool: ImagePool, rows: Rows) -> ValidationSet | None:
        """Classes held out to choose on; None where no episode can be drawn."""
        try:
            return self._hold_out(pool, rows, EPISODES)
        except DataError as error:
            self.report(f"{PLAIN} everywhere, without choosing: {error}")
            return None

    def _examine(
        self, images: TrainingImages, view: View, found: Sequence[ChosenView], to_come: Sequence[View]
    ) -> ChosenView:
        """A view with the best of the metrics; the time that views `to_come` need is left to them. BudgetExhausted
        where the view does not fit in the time or memory left."""
        beside = [one.member.view for one in _best_first(found)[: MEMBERS - 1]]
        if found:
            self._check_room([*beside, view], len(images.rows))
        features = self._embed(images.pool, images.rows, view, self._forecast.spare_s(beside or [view]))
        if images.validation_set is None:
            return ChosenView(_member(view, PLAIN), Metric(find_metric(PLAIN)))
        validation_set = replace(images.validation_set)  # so that its caches end with this view
        asked = features[validation_set.keys]
        embed_s = POLICY.slowdown * len(images.rows) * sum(map(self._forecast.image_s, to_come))

        def has_time(measured: int) -> bool:
            """For a metric and the last fit; after the first, only where views to come need nothing of it."""
            later_s = embed_s + len(to_come) * self._metric_s if measured else 0.0
            return self._forecast.fits([*beside, view], spare_s=self._metric_s + later_s)

        names = CHOICES if images.pool.classes >= LEAST_CLASSES else (PLAIN,)
        name, answer = self._choose_metric(view, asked, validation_set, names, has_time)
        fresh = validation_set.answer(view, asked, HEAD, _params(name), validation_set.fresh)
        temperature = fit_temperature(answer, validation_set.episodes)
        metric = Metric(find_metric(name))
        if metric.spec.learned:
            labels = torch.from_numpy(images.pool.labels[images.rows])
            metric = FeatureStatistics(features, labels).fit(metric.spec)
        log_p = apply_temperature(fresh.scores, temperature)
        return ChosenView(_member(view, name, temperature), metric, answer.mean, log_p)

    @property
    def _metric_s(self) -> float:
        """Seconds to allow for measuring one metric on a view and fitting it again: twice the slowest so far."""
        return 2 * (self._measured.percentile_s(100) if len(self._measured) else POLICY.trial_s)

    def _check_room(self, views: Sequence[View], n_images: int) -> None:
        """BudgetExhausted where embedding so many images in the last of the views, and then meta-test with all of
        them, does not fit in the time left, or not in memory."""
        view = views[-1]
        if not self._forecast.fits(views, {view: n_images}, spare_s=self._metric_s):
            raise BudgetExhausted(f"{n_images} images and meta-test with it do not fit in the time left")
        widths = self._shelf(view.backbone).widths
        n_bytes = FEATURE_COPIES * n_images * sum(widths.values()) * torch.float32.itemsize
        if not self.limits.memory.fits(VIEW_BYTES + n_bytes):
            raise BudgetExhausted(f"{n_images} images with it do not fit in the memory left")

    def _choose_metric(
        self,
        view: View,
        features: torch.Tensor,
        validation_set: ValidationSet,
        names: Sequence[str],
        has_time: Callable[[int], bool],
    ) -> tuple[str, Answer]:
        """The best of the metrics called `names`, of as many as there is time to measure, and what it answers.
        BudgetExhausted where there is none."""
        answers: dict[str, Answer] = {}
        for place, name in enumerate(names):
            if not has_time(place):
                self.report(f"{view}: no time for the metrics from {name} on")
                break
            outcome = measure_safely(partial(validation_set.answer, view, features, HEAD, _params(name)))
            self._measured.add(outcome.seconds)
            self.report(f"{view}, {name}: {outcome.answer.percent() if outcome.answer else outcome.note}")
            if outcome.answer:
                self._forecast.answered(view, outcome.seconds, EPISODES)
                answers[name] = outcome.answer
        if not answers:
            raise BudgetExhausted("no metric could be measured")
        best = max(answers, key=lambda name: answers[name].mean)
        return best, answers[best]

    def _save_best(
        self, found: Sequence[ChosenView], validation_set: ValidationSet | None, stage: str
    ) -> FittedLearner:
        """Save the best views of those found, as many as meta-test has time for."""
        chosen: list[ChosenView] = []
        for one in _best_first(found):
            views = [other.member.view for other in (*chosen, one)]
            needed_s = self._forecast.save_s(views) + self._forecast.meta_test_s(views)
            if not chosen or (len(chosen) < MEMBERS and self.limits.run.fits(needed_s)):
                chosen.append(one)
        record: dict[str, Any] = {"stage": stage}
        described = ", ".join(f"{one.name} on {one.member.view}" for one in chosen)
        if validation_set is not None:
            log_p = average_batches([one.log_p for one in chosen], [1.0] * len(chosen))
            answer = validation_set.fresh.with_calibration(validation_set.fresh.measure(log_p))
            record |= answer.figures()
            described = f"{answer.percent()} on fresh validation episodes with {described}"
        self.report(f"chosen: {described}")
        metrics = {(one.member.view, one.name): one.metric for one in chosen if one.metric.spec.learned}
        return self._save([one.member for one in chosen], metrics, record)


def _params(name: str) -> Params:
    """Parameters of the head after the metric called `name`."""
    return {**HEAD_PARAMS, "transform": name}


def _member(view: View, name: str, temperature: float = 1.0) -> Member:
    """The head on a view, after the metric called `name`."""
    head = {"head": HEAD, "params": _params(name), "temperature": temperature}
    return plain_member(view).model_copy(update=head)


def _best_first(found: Sequence[ChosenView]) -> list[ChosenView]:
    return sorted(found, key=lambda one: -one.accuracy)
